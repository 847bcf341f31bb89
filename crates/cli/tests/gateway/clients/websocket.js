// A server and a client of the package ws, with the gateway between them. With one argument it is the server, and says
// its port; with an address, the client.
const assert = require('assert');
const { WebSocket, WebSocketServer } = require('ws');

function serve() {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'echo' });
  server.on('listening', () => console.log(server.address().port));
  server.on('connection', (socket) => {
    socket.on('message', (data, isBinary) => {
      if (String(data) === 'bye') socket.close(4001, 'as told');
      else socket.send(data, { binary: isBinary });
    });
  });
}

function next(socket, event) {
  return new Promise((resolve, reject) => {
    socket.once(event, (...values) => resolve(values));
    if (event !== 'close') socket.once('close', () => reject(new Error('closed')));
    socket.once('error', reject);
  });
}

async function ask(address, certificate) {
  const options = certificate ? { ca: require('fs').readFileSync(certificate) } : {};
  const socket = new WebSocket(address, 'echo', options);
  await next(socket, 'open');
  assert.strictEqual(socket.protocol, 'echo');
  const large = Buffer.alloc(3000000, 'abcdefg');
  for (const message of ['hello', '', Buffer.from([0, 1, 2, 255]), large]) {
    const came = next(socket, 'message');
    socket.send(message);
    const [data, isBinary] = await came;
    assert.deepStrictEqual([isBinary, data.equals(Buffer.from(message))], [typeof message !== 'string', true]);
  }
  // In fragments, and with a ping between them.
  const came = next(socket, 'message');
  const pong = next(socket, 'pong');
  socket.send('frag', { fin: false });
  socket.ping('still there');
  socket.send('ments', { fin: true });
  assert.strictEqual(String((await pong)[0]), 'still there');
  assert.strictEqual(String((await came)[0]), 'fragments');
  // Many at once come back in order.
  const all = new Promise((resolve) => {
    const seen = [];
    socket.on('message', (data) => { if (seen.push(Number(data)) === 1000) resolve(seen); });
  });
  for (let i = 0; i < 1000; i++) socket.send(String(i));
  assert.deepStrictEqual(await all, [...Array(1000).keys()]);
  const closed = next(socket, 'close');
  socket.send('bye');
  const [code, reason] = await closed;
  assert.deepStrictEqual([code, String(reason)], [4001, 'as told']);
  console.log('ok');
}

if (process.argv.length > 2) ask(process.argv[2], process.argv[3]);
else serve();
