/**
 * Other ways to ask another process, each as its own users write it: `request` of nats.js, and zeromq.js, which is no
 * dependency. Both answer with the bytes that come.
 */
import { connect } from "@nats-io/transport-node";
import { requireBaseline } from "../baselines.js";

/** Client or server of an alternative transport. */
interface Side {
  close(): unknown;
}

/** Answers on a subject. */
export async function answerByNats(servers: string, subject: string): Promise<Side> {
  const connection = await connect({ servers });
  connection.subscribe(subject, { callback: (_, message) => void message.respond(message.data) });
  await connection.flush();
  return { close: () => connection.close() };
}

/** Connects to what answers there. */
export async function askByNats(
  servers: string,
  subject: string,
  payload: Uint8Array,
): Promise<Side & { ask(): Promise<unknown> }> {
  const connection = await connect({ servers });
  return { ask: () => connection.request(subject, payload), close: () => connection.close() };
}

/** Bytes of the number that zeromq carries before a payload: its sockets match no answers to requests. */
const numberBytes = 4;

interface ZeromqSocket extends AsyncIterable<Buffer[]> {
  readonly lastEndpoint: string | null;
  bind(address: string): Promise<void>;
  connect(address: string): void;
  send(frames: readonly Uint8Array[]): Promise<void>;
  close(): void;
}

interface Zeromq {
  readonly Router: new (options: object) => ZeromqSocket;
  readonly Dealer: new (options: object) => ZeromqSocket;
}

/** Answers by a ROUTER; undefined where the program that comes with zeromq.js cannot be loaded. */
export async function answerByZeromq(): Promise<(Side & { readonly address: string }) | undefined> {
  let zeromq: Zeromq;
  try {
    zeromq = requireBaseline<Zeromq>("zeromq");
  } catch (error) {
    console.error(error);
    return undefined;
  }
  const router = new zeromq.Router({ linger: 0 });
  await router.bind("tcp://127.0.0.1:0");
  const answering = async (): Promise<void> => {
    for await (const frames of router) await router.send(frames);
  };
  answering().catch(console.error);
  return { address: router.lastEndpoint!, close: () => router.close() };
}

/** Asks by a DEALER. */
export function askByZeromq(address: string, payload: Uint8Array): Side & { ask(): Promise<unknown> } {
  const dealer = new (requireBaseline<Zeromq>("zeromq").Dealer)({ linger: 0 });
  dealer.connect(address);
  const pending = new Map<number, (answer: Buffer) => void>();
  const receiving = async (): Promise<void> => {
    for await (const [number, answer] of dealer) {
      const asked = number!.readUInt32BE();
      pending.get(asked)!(answer!);
      pending.delete(asked);
    }
  };
  receiving().catch(console.error);
  let last = 0;
  // A socket takes one message at a time.
  let sent = Promise.resolve();
  const ask = () =>
    new Promise<Buffer>((resolve, reject) => {
      const number = Buffer.allocUnsafe(numberBytes);
      number.writeUInt32BE(++last);
      pending.set(last, resolve);
      sent = sent.then(() => dealer.send([number, payload])).catch(reject);
    });
  return { ask, close: () => dealer.close() };
}
