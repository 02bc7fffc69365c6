/** The functions of the relay in SQL, as tests call them. */
import type pg from "pg";

/** A role, or a route of it, with a position of its own. */
export interface Series {
  readonly role: string;
  readonly route: string | null;
  readonly from: string;
  readonly to: string | null;
  readonly after: string;
}

/** A position of the relay. */
export interface Position {
  readonly from: string;
  readonly to: string | null;
  readonly after: string;
  readonly series: readonly Series[];
  readonly skipped: readonly string[];
}

/** Result of {@link takeNats}. */
export interface TakenNats {
  readonly turn: bigint;
  readonly position: Position;
}

/** Takes the outbox over. */
export async function takeNats(client: pg.ClientBase, owner: string): Promise<TakenNats> {
  const { rows } = await client.query("SELECT * FROM hawser.outbox_take($1, NULL)", [owner]);
  const [{ turn, done_from: from, done_to: to, done_after: after, series, skipped }] = rows;
  return { turn: BigInt(turn), position: { from, to, after, series, skipped } };
}

/** Read of a turn of the relay. */
export type NatsRead =
  | {
      readonly kind: "poll";
      readonly from: string;
      readonly series?: readonly {
        readonly role: string;
        readonly route: string | null;
        readonly from: string;
        readonly joins: boolean;
      }[];
    }
  | {
      readonly kind: "page";
      /** null: of all. */
      readonly role: string | null;
      readonly route?: string | null;
      readonly excluded?: readonly string[];
      readonly from: string;
      readonly to: string;
      readonly after: string;
    };

/** Input of {@link natsTurn}. */
export interface NatsStep {
  readonly turn: bigint;
  readonly position: Position;
  readonly read?: NatsRead;
  readonly mustSave?: boolean;
  readonly maxMessages?: number;
  readonly maxPayload?: number;
  readonly dead?: readonly {
    readonly id: string;
    readonly code: string;
    readonly message: string;
    readonly attempts: number;
  }[];
}

/** A message as a turn shows it. */
export interface ReadMessage {
  readonly id: string;
  readonly role: string;
  readonly destination: string;
  readonly domain: string | null;
  readonly text: string | null;
  readonly key: string | null;
}

/** Result of a turn of the relay. */
export interface NatsTurn {
  readonly state: "saved" | "read" | "repeated" | "lost";
  readonly messages: readonly ReadMessage[];
  readonly to: string;
  readonly hasMore: boolean;
  readonly rest: readonly { readonly role: string; readonly route: string | null; readonly after: number }[];
}

/** A turn of the relay. */
export async function natsTurn(client: pg.ClientBase, owner: string, step: NatsStep): Promise<NatsTurn> {
  const { turn, position, read, mustSave = false, maxMessages = 1_000, maxPayload = null, dead } = step;
  const poll = read?.kind === "poll" ? read : undefined;
  const page = read?.kind === "page" ? read : undefined;
  const { rows } = await client.query(
    `SELECT *, convert_from(payload, 'UTF8') AS text
       FROM hawser.outbox_turn_nats($1, $3, NULL, NULL, NULL, $4, $5, $6, $7, $8, $9, $10, $11, $2, 1000000,
              $12, $13, $14, $15, $16, $17, $18, $19)`,
    [
      owner,
      maxMessages,
      String(turn),
      position.from,
      position.to,
      position.after,
      JSON.stringify(position.series),
      position.skipped,
      mustSave,
      dead === undefined ? null : JSON.stringify(dead),
      read?.kind ?? null,
      read?.from ?? null,
      page?.to ?? null,
      page?.after ?? null,
      poll === undefined ? null : JSON.stringify(poll.series ?? []),
      page?.role ?? null,
      page?.route ?? null,
      page?.excluded === undefined ? null : JSON.stringify(page.excluded.map((route) => ({ role: page.role, route }))),
      maxPayload,
    ],
  );
  const { state, done_to: to, has_more: hasMore, rest } = rows.pop();
  return { state, messages: rows, to, hasMore: hasMore === true, rest: rest ?? [] };
}
