/**
 * The other process of `bench/wire.ts`: takes batches and bytes as fast as it can, and echoes. Tells its addresses over
 * the IPC channel and ends with it.
 */
import { createServer, type Server } from "node:net";
import { dial, listen, type SenderConnection } from "../src/transport/index.js";

/** What both processes know. */
export const mesh = { secret: new Uint8Array(32).fill(1), near: "near", far: "far" };

/** What the far side tells when it listens. */
export interface FarSide {
  readonly hawser: string;
  /** Answers one byte after every `sinkBytes` bytes. */
  readonly rawSink: number;
  readonly rawEcho: number;
}

const ignore = { onAck() {}, onGoodbye() {}, onDrain() {}, onClosed() {} };

/** The topic of a run's last message. */
export const lastTopicKey = 2;

/** Connection keys: what the near side wants of a connection. */
export const keys = { sink: 1, echo: 2 };

async function portOf(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const bound = server.address();
  return typeof bound === "object" && bound !== null ? bound.port : 0;
}

async function main(): Promise<void> {
  const listener = await listen({
    address: "127.0.0.1:0",
    listenerName: mesh.far,
    secrets: () => [mesh.secret],
    maxMessageBytes: 1 << 26,
    authorize: async () => ({ accept: true, welcome: { cursorEpoch: 0, cursor: 0, backlog: 0, credit: 1 << 30 } }),
    onHandshakeRefused: (refusal) => console.error(refusal),
    onConnection: (connection, hello) => {
      let back: SenderConnection | undefined;
      if (hello.connectionKey === keys.echo) {
        const identity = { ...hello, senderName: mesh.far, listenerName: mesh.near };
        // The near side's address travels as its source topic.
        const address = hello.sourceTopic.replace("/", ":");
        void dial({ address, identity, secret: mesh.secret, handlers: ignore }).then((dialled) => {
          back = dialled.connection;
        });
      }
      return {
        onBatch: (batch) => {
          if (back !== undefined) {
            back.writeBatch(batch);
            return;
          }
          // The near side ends a run with a message for another topic: until then nothing answers, as for at-most-once.
          if (batch.topicKey !== lastTopicKey) return;
          const number = batch.firstNumber + batch.payloads.length - 1;
          connection.writeAck({ epoch: hello.epoch, number, credit: 1 << 30, backlog: 0, busy: false, live: true });
        },
        onGoLive() {},
        onGoodbye() {},
        onClosed: () => back?.destroy(),
      };
    },
  });
  const rawSink = createServer({ noDelay: true }, (socket) => {
    let left = -1;
    socket.on("data", (chunk) => {
      let bytes = chunk.length;
      if (left === -1) {
        left = Number(chunk.readBigUInt64BE());
        bytes -= 8;
      }
      left -= bytes;
      if (left === 0) {
        left = -1;
        socket.write("x");
      }
    });
    socket.on("error", () => {});
  });
  const rawEcho = createServer({ noDelay: true }, (socket) => {
    socket.pipe(socket);
    socket.on("error", () => {});
  });
  const told: FarSide = {
    hawser: listener.boundAddress,
    rawSink: await portOf(rawSink),
    rawEcho: await portOf(rawEcho),
  };
  process.send?.(told);
  process.on("disconnect", () => process.exit(0));
}

if (process.send !== undefined) await main();
