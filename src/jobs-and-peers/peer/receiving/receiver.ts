/** Receiving side of a running peer, as the sources of its messages see it. */
import type { HandlingHost } from "../../handlers/handling-host.js";
import type { QueueWorker } from "../../queue/worker/queue-worker.js";
import type { CursorCommitter } from "../../store/index.js";
import type { PeerContext } from "../core/context.js";
import type { ChannelCalls } from "./channel-calls.js";
import type { RequestCalls } from "./request-calls.js";

export interface Receiver extends HandlingHost {
  readonly context: PeerContext;
  readonly channelCalls: ChannelCalls;
  readonly requestCalls: RequestCalls;
  readonly committer: CursorCommitter;
  readonly worker: Pick<QueueWorker, "current" | "wants" | "adopt">;
  /** Closes and removes the link of a channel that belongs to another listener. */
  closeLink(channelId: number): void;
}
