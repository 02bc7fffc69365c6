/**
 * A pooler before Postgres as PgBouncer is one: clients log in at it, and it hands their messages to sessions of its own,
 * the one that was used last first; for a transaction each, or for as long as the client is there.
 */
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import pg from "pg";

/** Unit that the pooler assigns a connection for. */
export type PoolMode = "transaction" | "session";

/** A running one. */
export interface Pooler extends AsyncDisposable {
  /** The URL of the server, with its own address in place of the server's. */
  readonly url: string;
}

const sslRequest = 80_877_103;
const cancelRequest = 80_877_102;

/**
 * Starts one.
 *
 * @param serverUrl the server and the login of its sessions, whoever logs in at it
 * @param refused start-up parameter with which it accepts no client; it drops all others
 */
export async function startPooler(serverUrl: string, mode: PoolMode, refused?: string): Promise<Pooler> {
  const idle: Backend[] = [];
  const all = new Set<Backend>();
  const clients = new Set<Socket>();
  const take = async (): Promise<Backend> => {
    const backend = idle.pop() ?? (await openBackend(serverUrl));
    all.add(backend);
    return backend;
  };
  const server = createServer((socket) => {
    clients.add(socket);
    socket.on("close", () => clients.delete(socket));
    serveClient(socket, mode, take, (backend) => idle.push(backend), refused);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = new URL(serverUrl);
  url.hostname = "127.0.0.1";
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const client of clients) client.destroy();
      for (const { stream } of all) stream.destroy();
      if (server.listening) await once(server, "close");
    },
  };
}

/** A session with the server, past its login. */
interface Backend {
  readonly stream: Socket;
  /** Gets whole messages. */
  onMessage: (message: Buffer) => void;
}

async function openBackend(url: string): Promise<Backend> {
  const client = new pg.Client(url);
  client.on("error", () => undefined);
  await client.connect();
  const stream = client.connection.stream as Socket;
  stream.removeAllListeners("data");
  const backend: Backend = { stream, onMessage: () => undefined };
  stream.on(
    "data",
    messages(1, (message) => backend.onMessage(message)),
  );
  return backend;
}

function serveClient(
  socket: Socket,
  mode: PoolMode,
  take: () => Promise<Backend>,
  giveBack: (backend: Backend) => void,
  refused: string | undefined,
): void {
  let backend: Promise<Backend> | undefined;
  const release = (): void => {
    void backend?.then((one) => {
      one.onMessage = () => undefined;
      giveBack(one);
    });
    backend = undefined;
  };
  const forward = messages(1, (message) => {
    if (message[0] === "X".charCodeAt(0)) {
      socket.end();
      return;
    }
    backend ??= take().then((one) => {
      one.onMessage = (answer) => {
        const isOver = answer[0] === "Z".charCodeAt(0) && answer[5] === "I".charCodeAt(0);
        if (isOver && mode === "transaction") release();
        socket.write(answer);
      };
      return one;
    });
    void backend.then(({ stream }) => stream.write(message));
  });
  const greet = messages(0, (message) => {
    const code = message.readInt32BE(4);
    if (code === sslRequest) socket.write("N");
    else if (code === cancelRequest) socket.end();
    else if (refused !== undefined && message.includes(`\0${refused}\0`)) socket.end(refusal(refused));
    else {
      socket.off("data", greet);
      socket.on("data", forward);
      socket.write(welcome());
    }
  });
  socket.on("data", greet);
  socket.on("error", () => undefined);
  // A session that a client had for itself, or a transaction that it has left open, is not used again.
  socket.on("close", () => void backend?.then(({ stream }) => stream.destroy()));
}

/** ErrorResponse of PgBouncer for a start-up parameter. */
function refusal(parameter: string): Buffer {
  const text = `SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: ${parameter}\0\0`;
  const message = Buffer.alloc(5 + text.length, `E0000${text}`);
  message.writeInt32BE(4 + text.length, 1);
  return message;
}

/** AuthenticationOk, a key that is no process of the server's, and that it is ready. */
function welcome(): Buffer {
  const key = Buffer.alloc(13);
  key.write("K");
  key.writeInt32BE(12, 1);
  key.writeInt32BE(randomInt(2 ** 30, 2 ** 31 - 1), 5);
  return Buffer.concat([Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0]), key, Buffer.from([0x5a, 0, 0, 0, 5, 0x49])]);
}

/** Cuts what comes into messages. @param typeBytes before the length: none in those before the login */
function messages(typeBytes: 0 | 1, each: (message: Buffer) => void): (chunk: Buffer) => void {
  let pending = Buffer.alloc(0);
  return (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= typeBytes + 4) {
      const length = typeBytes + pending.readInt32BE(typeBytes);
      if (pending.length < length) return;
      const message = pending.subarray(0, length);
      pending = pending.subarray(length);
      each(message);
    }
  };
}
