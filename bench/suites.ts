/**
 * The suites that `npm run bench` knows.
 */
import { channels } from "./channels/channels.js";
import { growth } from "./growth/growth.js";
import { handlers } from "./handlers/handlers.js";
import { liner } from "./liner/liner.js";
import { peerDurable, peerLive } from "./live/live.js";
import { backlog, jobs, offline } from "./offline/offline.js";
import { outbox } from "./outbox/outbox.js";
import { path } from "./path/path.js";
import { pingPong } from "./ping-pong/ping-pong.js";
import { rpc } from "./rpc/rpc.js";
import { sqlCalls } from "./sql-calls/sql-calls.js";
import { sqlPublish } from "./sql-publish/sql-publish.js";
import { streams } from "./streams/streams.js";
import { subscribe } from "./subscribe/subscribe.js";
import type { Suite } from "./suite.js";
import { tracing } from "./tracing/tracing.js";
import { typed } from "./typed/typed.js";

/** All suites, in the order of the help. */
export const suites: readonly Suite[] = [
  peerLive,
  peerDurable,
  pingPong,
  rpc,
  path,
  typed,
  tracing,
  jobs,
  offline,
  backlog,
  handlers,
  channels,
  growth,
  liner,
  sqlPublish,
  sqlCalls,
  subscribe,
  outbox,
  streams,
];
