// Everything that the Node client offers, with the API's address and an echo server's.
"use strict";
const assert = require("node:assert");
const net = require("node:net");
const { Toxiproxy } = require("toxiproxy-node-client");

const [api, upstream] = process.argv.slice(2);

function echo(proxy, word = "word") {
  const at = proxy.listen.lastIndexOf(":");
  const stream = net.connect({ host: proxy.listen.slice(0, at), port: Number(proxy.listen.slice(at + 1)) });
  return new Promise((resolve, reject) => {
    let got = "";
    stream.on("connect", () => stream.write(word));
    stream.on("data", (bytes) => {
      got += bytes;
      if (got.length >= word.length) {
        stream.destroy();
        resolve(got);
      }
    });
    stream.on("end", () => resolve(null));
    stream.on("error", reject);
  });
}

async function main() {
  const toxiproxy = new Toxiproxy(api);
  assert.match(await toxiproxy.getVersion(), /"version"/);
  const proxy = await toxiproxy.createProxy({ listen: "localhost:0", name: "redis", upstream });
  assert.equal(await echo(proxy), "word");
  await assert.rejects(toxiproxy.createProxy({ listen: "localhost:0", name: "redis", upstream }), /409/);

  const slow = await proxy.addToxic({ attributes: { rate: 1000 }, type: "bandwidth" });
  assert.deepEqual(slow.toJson(), {
    attributes: { rate: 1000 }, name: "bandwidth_downstream", stream: "downstream", toxicity: 1, type: "bandwidth",
  });
  const changed = await slow.update({ attributes: { rate: 0.02 }, toxicity: 1 });
  assert.equal(changed.attributes.rate, 0.02);
  const started = Date.now();
  assert.equal(await echo(proxy), "word");
  assert.ok(Date.now() - started >= 190, "four bytes at 20 a second");
  await (await proxy.getToxic("bandwidth_downstream")).remove();
  await assert.rejects(proxy.getToxic("bandwidth_downstream"), /404/);
  await proxy.addToxic({ type: "reset_peer", stream: "upstream", attributes: { timeout: 0 }, toxicity: 1.0, name: "rst" });
  await assert.rejects(echo(proxy), /ECONNRESET/);
  await toxiproxy.reset();
  assert.equal(await echo(proxy), "word");

  const down = await proxy.update({ enabled: false, listen: proxy.listen, upstream });
  assert.equal(down.enabled, false);
  await assert.rejects(echo(proxy), /ECONNREFUSED/);
  await proxy.update({ enabled: true, listen: proxy.listen, upstream });
  assert.equal(await echo(await toxiproxy.get("redis")), "word");

  const made = await toxiproxy.populate([{ name: "one", listen: "127.0.0.1:0", upstream }]);
  assert.equal(await echo(made.one), "word");
  assert.deepEqual(Object.keys(await toxiproxy.getAll()).sort(), ["one", "redis"]);
  for (const one of Object.values(await toxiproxy.getAll())) {
    await one.remove();
  }
  assert.deepEqual(await toxiproxy.getAll(), {});
}

main().then(() => console.log("done"), (error) => {
  console.error(error);
  process.exit(1);
});
