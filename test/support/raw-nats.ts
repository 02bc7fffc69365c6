/**
 * NATS client that follows no rule except the server's: it sends header blocks as given.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** A message with a header block, as the protocol has it. @param lines what is between `NATS/1.0` and the empty line */
export function rawMessage(subject: string, lines: string | Uint8Array, payload = "", first = "NATS/1.0"): Buffer {
  const head = Buffer.concat([Buffer.from(`${first}\r\n`), Buffer.from(lines), Buffer.from("\r\n\r\n")]);
  const body = Buffer.from(payload);
  const command = `HPUB ${subject} ${head.length} ${head.length + body.length}\r\n`;
  return Buffer.concat([Buffer.from(command), head, body, Buffer.from("\r\n")]);
}

/** A message without headers. */
export function plainMessage(subject: string, payload: string): Buffer {
  return Buffer.from(`PUB ${subject} ${Buffer.byteLength(payload)}\r\n${payload}\r\n`);
}

/** A socket that the server has greeted. The caller ends it. */
async function rawClient(natsUrl: string): Promise<Socket> {
  const { hostname, port } = new URL(natsUrl);
  const socket = connect(Number(port), hostname);
  await once(socket, "data");
  socket.write('CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n');
  return socket;
}

/** Writes them, and resolves when the server has taken all. */
export async function writeRaw(natsUrl: string, ...messages: readonly Uint8Array[]): Promise<void> {
  const socket = await rawClient(natsUrl);
  try {
    socket.write(Buffer.concat([...messages, Buffer.from("PING\r\n")]));
    for (let heard = ""; !heard.includes("PONG"); ) {
      const [chunk] = (await once(socket, "data")) as [Buffer];
      heard += chunk.toString("latin1");
      if (heard.includes("-ERR")) throw new Error(heard);
    }
  } finally {
    socket.destroy();
  }
}

/** Answers each message to the subject with that header block and payload, until it is called off. */
export async function rawService(
  natsUrl: string,
  subject: string,
  lines: string,
  payload: string,
): Promise<() => void> {
  const socket = await rawClient(natsUrl);
  let heard = "";
  socket.on("data", (chunk) => {
    heard += chunk.toString("latin1");
    for (let end = heard.indexOf("\n"); end >= 0; end = heard.indexOf("\n")) {
      const [verb, , , reply] = heard.slice(0, end).trim().split(" ");
      if (verb === "MSG" && reply !== undefined) socket.write(rawMessage(reply, lines, payload));
      heard = heard.slice(end + 1);
    }
  });
  socket.write(`SUB ${subject} 1\r\nPING\r\n`);
  await once(socket, "data");
  return () => socket.destroy();
}
