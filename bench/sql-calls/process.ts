/**
 * The program of the processes that use nats.js: one answers requests, the other one does what the functions do.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { serveRequests } from "../worker.js";
import { NatsOperations, type Operation, type Places } from "./operations.js";

interface Load {
  readonly operation: Operation;
  readonly times: number;
  /** So many at once. */
  readonly count: number;
}

/** Totals of completed operations, as counted by NATS. */
interface Done {
  readonly answers: number;
  readonly revision: number;
  readonly messages: number;
}

let nats: NatsConnection | undefined;
let places: Places | undefined;
let operations: NatsOperations | undefined;
let answers = 0;

const requests = {
  /** Makes the bucket and the stream, unless they are there. */
  async open(where: { readonly natsUrl: string; readonly places: Places }): Promise<void> {
    places = where.places;
    nats = await connect({ servers: where.natsUrl });
    const manager = await jetstreamManager(nats);
    await manager.streams.add({ name: places.stream, subjects: [places.streamSubject], storage: "file" });
    operations = await NatsOperations.open(nats, places);
  },

  /** Answers each request with its payload. */
  async answer(): Promise<void> {
    nats!.subscribe(places!.subject, {
      callback: (_error, message) => {
        answers += 1;
        message.respond(message.data);
      },
    });
    await nats!.flush();
  },

  /** Does something, so many times. @returns how long it took, in seconds */
  async run({ operation, times, count }: Load): Promise<number> {
    const act = operations!.do[operation];
    const each = Math.max(1, Math.round(times / count));
    const began = performance.now();
    await Promise.all(
      Array.from({ length: count }, async () => {
        for (let turn = 0; turn < each; turn++) await act();
      }),
    );
    return (performance.now() - began) / 1000;
  },

  /** Totals up to now over all clients, except that `answers` counts this process only. */
  async done(): Promise<Done> {
    const { state } = await (await jetstreamManager(nats!)).streams.info(places!.stream);
    return { answers, revision: await operations!.revision(), messages: state.messages };
  },

  /** Removes the bucket and the stream. */
  async remove(): Promise<void> {
    await (await jetstreamManager(nats!)).streams.delete(places!.stream);
    await operations!.remove();
  },
};

/** Requests that the process answers. */
export type NatsRequests = typeof requests;

serveRequests(requests, async () => nats?.close());
