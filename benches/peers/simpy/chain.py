"""The systems of the engine comparison in SimPy: a process for each request.

python3 chain.py mm8|chain SECONDS prints requests, CPU seconds of the run, and the mean response
time in ms.
"""

import math
import random
import sys
import time

import simpy


class Histogram:
    """64 buckets an octave."""

    def __init__(self):
        self.counts = {}
        self.count = 0
        self.sum = 0.0

    def record(self, seconds):
        bucket = int(64 * math.log2(seconds + 1e-9))
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.count += 1
        self.sum += seconds


class Breaker:
    """Opens for 5 s at half of at least 20 calls failed in ten seconds."""

    def __init__(self, env):
        self.env = env
        self.buckets = [[-10, 0, 0] for _ in range(10)]
        self.open_until = 0.0

    def admits(self):
        return self.env.now >= self.open_until

    def settle(self, ok):
        second = int(self.env.now)
        bucket = self.buckets[second % 10]
        if bucket[0] != second:
            bucket[:] = [second, 0, 0]
        bucket[1] += 1
        if not ok:
            bucket[2] += 1
            recent = [b for b in self.buckets if b[0] > second - 10]
            calls, failed = sum(b[1] for b in recent), sum(b[2] for b in recent)
            if calls >= 20 and failed * 2 >= calls:
                self.open_until = self.env.now + 5


class Caller:
    """A deadline, retries within a budget, and a breaker around calls."""

    def __init__(self, env, timeout, attempts):
        self.env = env
        self.timeout = timeout
        self.attempts = attempts
        self.breaker = Breaker(env)
        self.budget = 0.0

    def call(self, target):
        """Calls target() and returns whether it answered well in time."""
        deadline = self.env.now + self.timeout
        self.budget = min(self.budget + 0.2, 1000.0)
        for attempt in range(self.attempts):
            left = deadline - self.env.now
            if left <= 0 or not self.breaker.admits():
                return False
            process = self.env.process(target())
            done = yield process | self.env.timeout(left)
            ok = process in done and process.value
            if process.is_alive:
                process.interrupt()
            self.breaker.settle(ok)
            if ok:
                return True
            if attempt + 1 == self.attempts or self.budget < 1:
                return False
            self.budget -= 1
            yield self.env.timeout(random.uniform(0, 0.05 * 2**attempt))
        return False


def mm8(env, histogram):
    servers = simpy.Resource(env, capacity=8)

    def request():
        born = env.now
        with servers.request() as turn:
            yield turn
            yield env.timeout(random.expovariate(100))
        histogram.record(env.now - born)

    return 640, request


def chain(env, histogram):
    database = simpy.Resource(env, capacity=8)
    client, gateway = Caller(env, 2.0, 3), Caller(env, 1.0, 2)

    class Api:
        def __init__(self):
            self.workers = simpy.Resource(env, capacity=32)
            self.cores = simpy.Resource(env, capacity=2)
            self.pool = simpy.Resource(env, capacity=4)
            self.caller = Caller(env, 0.5, 2)

        def handle(self):
            if len(self.workers.queue) >= 1000:
                return False
            try:
                with self.workers.request() as worker:
                    yield worker
                    with self.cores.request() as core:
                        yield core
                        yield env.timeout(random.expovariate(200))
                    return (yield from self.caller.call(self.query))
            except simpy.Interrupt:
                return False

        def query(self):
            try:
                with self.pool.request() as connection:
                    yield connection
                    with database.request() as turn:
                        yield turn
                        yield env.timeout(random.expovariate(1 / 0.006))
                return True
            except simpy.Interrupt:
                return False

    apis = [Api() for _ in range(3)]
    turn = 0

    def forward():
        nonlocal turn
        api = apis[turn]
        turn = (turn + 1) % 3
        try:
            return (yield from gateway.call(api.handle))
        except simpy.Interrupt:
            return False

    def request():
        born = env.now
        yield from client.call(forward)
        histogram.record(env.now - born)

    return 1000, request


def main():
    build, seconds = {"mm8": mm8, "chain": chain}[sys.argv[1]], float(sys.argv[2])
    random.seed(1)
    env = simpy.Environment()
    histogram = Histogram()
    rate, request = build(env, histogram)
    requests = 0

    def arrivals():
        nonlocal requests
        while True:
            yield env.timeout(random.expovariate(rate))
            requests += 1
            env.process(request())

    env.process(arrivals())
    start = time.process_time()
    env.run(until=seconds)
    spent = time.process_time() - start
    print(requests, spent, histogram.sum / histogram.count * 1e3)


main()
