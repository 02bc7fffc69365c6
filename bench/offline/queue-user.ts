/**
 * The systems that keep messages in Postgres for a worker that is away, behind one interface.
 */

/** The systems. */
export const systemNames = ["hawser", "pg-boss", "graphile-worker"] as const;

export type SystemName = (typeof systemNames)[number];

/** The side that stores. */
export interface Storing {
  /** Stores `count` times the text, and resolves when all of it is committed. */
  store(text: string, count: number): Promise<void>;
  close(): Promise<void>;
}

/** The side that handles. It does not run before {@link Draining.drain}. */
export interface Draining {
  /**
   * Starts, handles `count` messages with a handler that does nothing, and resolves when they are done and that is
   * committed, so that none of them would come again.
   */
  drain(count: number): Promise<void>;
  /** Stops what `drain` has started, and removes what it left. */
  rest(): Promise<void>;
  close(): Promise<void>;
}

/** What a process of a system is told. */
export interface Opening {
  readonly system: SystemName;
  readonly databaseUrl: string;
}

/** What is stored. */
export interface Load {
  readonly payloadBytes: number;
  readonly messages: number;
}
