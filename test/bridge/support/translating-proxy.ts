/**
 * A Postgres whose `lc_messages` is another language: between a client and a real one, the severity that people read is
 * replaced in errors and notices. All else, and the severity for programs, is passed on as it is.
 */
import { createServer, type Socket, connect as tcpConnect } from "node:net";

/** Disposing ends its connections. */
export interface TranslatingProxy extends AsyncDisposable {
  /** As that of the server, with another port. */
  readonly url: string;
  /** The severities that have been translated by now. */
  readonly translated: ReadonlySet<string>;
}

/** For connections without TLS. @param words by severity, such as "FATAL" */
export async function translatingProxy(
  serverUrl: string,
  words: Readonly<Record<string, string>>,
): Promise<TranslatingProxy> {
  const { hostname, port } = new URL(serverUrl);
  const sockets = new Set<Socket>();
  const translated = new Set<string>();
  const proxy = createServer((near) => {
    const far = tcpConnect({ host: hostname, port: Number(port), noDelay: true });
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => sockets.delete(socket));
    }
    near.pipe(far);
    let waiting: Buffer = Buffer.alloc(0);
    far.on("data", (chunk) => {
      waiting = Buffer.concat([waiting, chunk]);
      while (waiting.length >= 5) {
        const end = 1 + waiting.readUInt32BE(1);
        if (waiting.length < end) return;
        near.write(translate(waiting.subarray(0, end)));
        waiting = waiting.subarray(end);
      }
    });
    far.on("end", () => near.end());
  });
  const translate = (message: Buffer): Buffer => {
    const type = message.toString("latin1", 0, 1);
    if (type !== "E" && type !== "N") return message;
    const fields = message
      .toString("utf8", 5)
      .split("\0")
      .map((field) => {
        const word = words[field.slice(1)];
        if (field[0] !== "S" || word === undefined) return field;
        translated.add(field.slice(1));
        return `S${word}`;
      });
    const body = Buffer.from(fields.join("\0"));
    const head = Buffer.from(`${type}....`);
    head.writeUInt32BE(4 + body.length, 1);
    return Buffer.concat([head, body]);
  };
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const url = new URL(serverUrl);
  url.hostname = "127.0.0.1";
  url.port = String((proxy.address() as { port: number }).port);
  return {
    url: url.href,
    translated,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => proxy.close(resolve));
    },
  };
}
