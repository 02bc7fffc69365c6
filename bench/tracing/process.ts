/**
 * The program of the process that sends and of the one that handles, with or without tracing.
 */
import { randomFillSync } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import * as api from "@opentelemetry/api";
import { node, tracing } from "@opentelemetry/sdk-node";
import pg from "pg";
import { Warehouse } from "../../test/connect/generated/acme/warehouse/v1/warehouse_pb.js";
import { newPeer, sendInWindows, sendUntilDelivered, usualWindows } from "../peers.js";
import { cpuSecondsSince, measuredModule, serveRequests } from "../worker.js";

const rpc = await measuredModule<typeof import("../../src/protobuf/connect/index.js")>("src/protobuf/connect/index.ts");
const peers = await measuredModule<typeof import("../../src/jobs-and-peers/peer/index.js")>(
  "src/jobs-and-peers/peer/index.ts",
);
const otel = await measuredModule<typeof import("../../src/operating/otel/index.js")>("src/operating/otel/index.ts");

/**
 * - `absent`: nothing is set up;
 * - `off`: `instrument` without an SDK;
 * - `sdk`: an SDK whose context is in use, as instrumentations of other libraries need it, without `instrument`;
 * - `on`: an SDK that records all spans it is given, with an exporter that does nothing;
 * - `every`: the same, and every live message and request begins a trace.
 */
export type TracingMode = "absent" | "off" | "sdk" | "on" | "every";

/** Work that is measured. */
export type TracedWork = "live" | "transactional" | "rpc";

const handlingPeer = "bench-tracing-handling";
const jobs = "bench-tracing-jobs";
const payloadBytes = 100;
const inFlight = 64;
const jobsInBatch = 500;

let peer: ReturnType<typeof newPeer> | undefined;
let client: pg.Client | undefined;
let call: () => Promise<unknown>;
let cpu: NodeJS.CpuUsage | undefined;
let handled = 0;
let onHandled: (() => void) | undefined;

function trace(mode: TracingMode): void {
  if (mode === "absent") return;
  if (mode !== "off") {
    const exporter: tracing.SpanExporter = {
      export: (_, done) => done({ code: 0 }),
      shutdown: async () => undefined,
    };
    const processor = new tracing.BatchSpanProcessor(exporter);
    new node.NodeTracerProvider({ spanProcessors: [processor] }).register();
    // From the first use on, Node.js calls a hook for each promise, before version 24.
    api.context.with(api.ROOT_CONTEXT, () => undefined);
  }
  if (mode === "sdk") return;
  otel.instrument(mode === "every" ? { livePerMillion: 1_000_000 } : {});
}

const requests = {
  async handle({ databaseUrl, mode }: { databaseUrl: string; mode: TracingMode }): Promise<void> {
    trace(mode);
    peer = newPeer(`${handlingPeer}-${mode}`, databaseUrl, { concurrency: 4, poolSize: 5 });
    await peer.handle(peer.topic, () => undefined);
    await peer.handle(`${jobs}-${mode}`, { transactional: true }, async () => {
      handled += 1;
      onHandled?.();
    });
    await rpc.servePeer(peer, (router) => router.rpc(Warehouse.method.reserve, ({ note }) => ({ note })), {
      topic: `bench-tracing-rpc-${mode}`,
    });
    await peer.start();
  },
  async connect({ databaseUrl, mode }: { databaseUrl: string; mode: TracingMode }): Promise<void> {
    trace(mode);
    peer = newPeer(`bench-tracing-sending-${mode}`, databaseUrl);
    await peer.start();
    await sendUntilDelivered(peer, `${handlingPeer}-${mode}`);
    const note = randomFillSync(new Uint8Array(payloadBytes));
    const transport = rpc.createPeerTransport(peer, { topic: `bench-tracing-rpc-${mode}` });
    const warehouse = createClient(Warehouse, transport);
    call = () => warehouse.reserve({ note });
    client = new pg.Client(databaseUrl);
    await client.connect();
  },
  /** Resolves when so many jobs were handled since the last time. */
  async jobsHandled(count: number): Promise<void> {
    if (handled < count) {
      await new Promise<void>((resolve) => {
        onHandled = () => handled >= count && resolve();
      });
    }
    handled = 0;
    onHandled = undefined;
  },
  /** Does so much work. */
  async work({ kind, mode, amount }: { kind: TracedWork; mode: TracingMode; amount: number }): Promise<void> {
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    if (kind === "live") {
      await sendInWindows(peer!, `${handlingPeer}-${mode}`, payload, amount, usualWindows["at-least-once"]);
    } else if (kind === "rpc") {
      let left = amount;
      const ask = async (): Promise<void> => {
        while (left-- > 0) await call();
      };
      await Promise.all(Array.from({ length: inFlight }, ask));
    } else {
      for (let left = amount; left > 0; left -= jobsInBatch) {
        const payloads = Array.from({ length: Math.min(left, jobsInBatch) }, () => payload);
        await peers.enqueueBatch(client!, `${jobs}-${mode}`, payloads);
      }
    }
  },
  watch(): void {
    cpu = process.cpuUsage();
  },
  /** CPU since the request `watch`, in seconds. */
  used: (): number => cpuSecondsSince(cpu!),
};

/** Requests of both processes. */
export type TracingRequests = typeof requests;

serveRequests(requests, async () => {
  await peer?.stop();
  await client?.end();
});
