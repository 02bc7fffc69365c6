/**
 * The numbers of the role watch and of the role-change notices.
 */
export const roleLimits = {
  /** The pause between two looks at whether Postgres is a primary or a standby, in milliseconds. */
  watchIntervalMs: 1_000,
  /** How long connecting may take, and how long the answer, before the role counts as unknown, in milliseconds. */
  lookTimeoutMs: 2_000,
  /** How soon after a look the next one follows where the session was lost in between, in milliseconds. */
  lookPauseMs: 100,
  /** How long Patroni may take for its answer, redirects included, in milliseconds. */
  patroniTimeoutMs: 2_000,
  /** How much of Patroni's answer is read, in bytes. */
  maxPatroniAnswerBytes: 65_536,
  /** How many redirects of Patroni are followed, one after another. */
  maxPatroniRedirects: 3,
  /** Over how many connections to NATS that end at once a notice is tried. */
  maxNoticeAttempts: 3,
} as const;
