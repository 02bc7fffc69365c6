/** Subscription to a topic of peers, or to a subject of NATS. `await using` stops it. */
export interface Subscription extends AsyncDisposable {
  /** The topics; of NATS the subject, with `*` for each field in it. */
  readonly topics: readonly string[];
  /** Resolves when the subscription has ended, whoever has ended it; rejects if it has failed. */
  readonly closed: Promise<void>;
  /** Ends the subscription. */
  stop(): Promise<void>;
}
