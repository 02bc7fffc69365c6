/**
 * How long an examination looks, and from when on it finds something long. In milliseconds.
 */

/** All checks together. */
export const totalMs = 27_000;

/** A check that asks Postgres for what it knows. */
export const catalogCheckMs = 6_000;

/** The connection to Postgres. */
export const connectMs = 5_000;

/** A statement; below the time of a check, so that Postgres says what it waited for. */
export const statementMs = 4_000;

/** A call of a SQL function through the gateway. Postgres gives up one address after 3 s, and takes the next. */
export const gatewayCallMs = 8_000;

/** A connection of our own to NATS, and what is asked over it. */
export const natsCheckMs = 6_000;

/** How long the leader is watched: it beats each second. */
export const leadWatchMs = 2_000;

/** How far a leader may be behind. */
export const lagMs = 10_000;

/** How long a peer's message may wait. */
export const storedMessageMs = 3_600_000;
