import type { DeadMessage, IncomingMessage, Position } from "../channel/index.js";
import type { Channel, Transaction } from "../store/index.js";
import type { PeerContext } from "./context.js";
import type { ListenerLink } from "./listener-link.js";

/** Where a message comes from. */
export type Source = Pick<Channel, "connectionKey" | "composite" | "senderName" | "sourceTopic">;

/** A message whose turn has come, with its payload uncompressed. */
export interface DueMessage {
  readonly message: IncomingMessage;
  /** The topic that it was sent to. */
  readonly to: string;
  readonly source: Source;
  readonly payload: Uint8Array;
  /** From 1. */
  readonly attempt: number;
  /** The handler's client of Postgres; undefined unless handlers are transactional. */
  readonly client: Transaction | undefined;
}

/** Hands a message to the handler. What it returns may be a promise. */
export type HandleIncoming = (due: DueMessage) => unknown;

/** Something that gets its turn from the dispatcher. */
export interface Turn {
  run(): void;
}

/** What a listener's links share beyond the context. */
export interface InboxServices extends PeerContext {
  /** The topic of a key, undefined while it is being looked up. */
  topicOf(topicKey: number): string | Promise<string | undefined>;
  serves(topic: string): boolean;
  /** Calls the handler. */
  readonly handle: HandleIncoming;
  /** The link has messages: it is called back at {@link Turn.run}. */
  wake(turn: Turn): void;
  /** Whether one more handler may run beside the others. */
  takeSlot(): boolean;
  freeSlot(): void;
  /** Whether other channels wait for their turn. */
  othersWait(): boolean;
  /**
   * Commits a channel's cursor.
   *
   * @param plain the dead message's payload, uncompressed
   */
  commit(connectionKey: number, cursor: Position, dead: DeadMessage | undefined, plain: Uint8Array | undefined): void;
  /** A handler has ended. */
  handlerEnded(): void;
  /** `begin` is called when no other channel's handler runs, and none does until {@link leaveIsolation}. */
  isolate(link: ListenerLink, begin: () => void): void;
  leaveIsolation(link: ListenerLink): void;
  /** The channel was handed over to another listener: its link is closed. */
  notOwned(connectionKey: number): void;
}

/** Thrown for a message whose handling does not count: it comes again. */
export const postponed = Symbol("postponed");
