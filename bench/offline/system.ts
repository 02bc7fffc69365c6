/**
 * Interface of a system under test that keeps messages in Postgres for an absent worker.
 */

/** The systems that have a module here. */
export type SystemName = "Hawser" | "Hawser jobs" | "pg-boss" | "pg-boss work" | "graphile-worker" | "pgmq" | "sql";

/** Exports of a system's module. */
export interface System {
  /** Prepares the tables, and the side that stores. */
  openStoring(databaseUrl: string): Promise<Storing>;
  /** Prepares the side that handles, which does not run yet. The other one has been opened. */
  openDraining(databaseUrl: string): Promise<Draining>;
}

/** The side that stores. */
export interface Storing {
  /** Stores `count` times the text, and resolves when all of it is committed. */
  store(text: string, count: number): Promise<void>;
  close(): Promise<void>;
}

/** The side that handles. */
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

/** System and database of a process. */
export interface Opening {
  readonly system: SystemName;
  readonly databaseUrl: string;
}

/** Messages to store. */
export interface Load {
  readonly payloadBytes: number;
  readonly messages: number;
}
