// Node's http2, over TLS and without: many streams at once, bodies both ways, a stream that is given up.
const http2 = require('http2');
const fs = require('fs');
const assert = require('assert');

const [base, certificate] = process.argv.slice(2);
const options = certificate ? { ca: fs.readFileSync(certificate) } : {};

function ask(session, headers, body, informed = () => {}) {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers);
    const got = { body: Buffer.alloc(0) };
    const pieces = [];
    stream.on('headers', informed);
    stream.on('response', (fields) => { got.status = fields[':status']; });
    stream.on('data', (piece) => pieces.push(piece));
    stream.on('end', () => { got.body = Buffer.concat(pieces); resolve(got); });
    stream.on('error', reject);
    stream.end(body);
  });
}

async function main() {
  const session = http2.connect(base, options);
  session.on('error', (error) => { throw error; });
  const asked = [...Array(300).keys()].map((i) => ask(session, { ':path': `/items/${i}` }));
  (await Promise.all(asked)).forEach(({ status, body }, i) => {
    assert.deepStrictEqual([status, String(body)], [200, `GET /items/${i}`]);
  });
  const body = Buffer.alloc(500000, 'abc');
  const echoed = await ask(session, { ':path': '/items', ':method': 'POST' }, body);
  assert.deepStrictEqual([echoed.status, echoed.body.equals(body)], [200, true]);
  const hints = [];
  const hinted = await ask(session, { ':path': '/items/hints' }, undefined, (fields) => hints.push(fields));
  assert.deepStrictEqual([hinted.status, String(hinted.body)], [200, 'hinted']);
  assert.deepStrictEqual(hints.map((fields) => [fields[':status'], fields.link]), [[103, '</a.css>; rel=preload']]);
  // One that is given up takes the others on its connection nowhere.
  const given_up = session.request({ ':path': '/large' });
  await new Promise((resolve) => given_up.once('data', resolve));
  const closed = new Promise((resolve) => given_up.once('close', resolve));
  given_up.on('error', () => {});
  given_up.close(http2.constants.NGHTTP2_CANCEL);
  await closed;
  const large = await ask(session, { ':path': '/large' });
  assert.deepStrictEqual([large.status, large.body.length], [200, 10000000]);
  assert.strictEqual((await ask(session, { ':path': '/items/1', ':method': 'HEAD' })).body.length, 0);
  await new Promise((resolve, reject) => session.ping((error) => (error ? reject(error) : resolve())));
  await new Promise((resolve) => session.close(resolve));
  console.log('ok');
}

main();
