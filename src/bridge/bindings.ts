/**
 * The SQL functions that NATS reaches, as the database has them. Each is called through a wrapper in the schema
 * `hawser_run`, which belongs to the role that subscribed or registered, and which asks for a token.
 */

interface Binding {
  readonly id: bigint;
  /** What it is subscribed to; may hold wildcards. */
  readonly subject: string;
  /** The function that was named, as people know it: `public.capture(bytea)`. */
  readonly functionName: string;
  /** The name of the wrapper within its schema. */
  readonly wrapper: string;
  /** What the wrapper demands of its caller. */
  readonly token: Uint8Array;
  /** The role that the function runs as: the owner of the wrapper. */
  readonly runAs: string;
}

/** A function that is called for each message. */
export interface Subscription extends Binding {
  readonly kind: "subscription";
  readonly takesSubject: boolean;
  readonly takesHeaders: boolean;
}

/** A function that answers requests. */
export interface Responder extends Binding {
  readonly kind: "responder";
}
