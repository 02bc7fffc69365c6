/** Departures from the rules of the hand-over, each of which its random histories must catch: they show that they can fail. */
import pg from "pg";
import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { type HandOverDriver, PeerHandOver } from "./support/peer-hand-over.js";

const seeds = 200;

interface Mutant extends HandOverDriver {
  readonly name: string;
  readonly fn?: string;
  /** In the text of the function, and what stands there instead. */
  readonly changes: readonly (readonly [from: string, to: string])[];
}

const insertsTurn = "INSERT INTO hawser.peer_outbox_turns (turn";

const mutants: readonly Mutant[] = [
  {
    name: "reads by id",
    changes: [
      ["WHERE s.xid >= v_xmax\n", "\n"],
      ["AS s WHERE s.xid = ANY (v_xip)\n", "AS s WHERE false\n"],
      ["pg_visible_in_snapshot(o.xid, v_to)", "o.id > v_last.done_after"],
      ["(s.xid >= v_xmax OR s.xid = ANY (v_xip)) AND pg_visible_in_snapshot(s.xid, v_to)", "true"],
      ["CASE WHEN has_more THEN v_ids[handed] ELSE 0 END", "coalesce(v_ids[handed], v_last.done_after)"],
    ],
  },
  {
    name: "takes the whole set for done after its first page",
    changes: [["CASE WHEN has_more THEN v_last.done_from ELSE v_to END", "v_to"]],
  },
  {
    name: "has no fence",
    changes: [
      ["held := v_last.owner = p_owner", "held := true"],
      ["v_turn := v_last.turn + 1", "v_turn := v_last.turn + 1 + (random() * 1000000)::integer"],
    ],
  },
  {
    name: "moves the position in another transaction than the store",
    savesApart: true,
    changes: [
      [insertsTurn, "INSERT INTO public.apart (saved_at, turn"],
      ["VALUES (\n    v_turn", "VALUES (\n    now(), v_turn"],
    ],
  },
  {
    name: "gives a key to another listener while older messages of it wait",
    changes: [["ORDER BY s.epoch DESC LIMIT 1\n               ),", "AND false LIMIT 1\n               ),"]],
  },
  {
    name: "overtakes what waits for a topic's first listener",
    changes: [
      [
        "ORDER BY s.epoch DESC LIMIT 1\n               ),",
        "AND NOT EXISTS (SELECT FROM hawser.conn_key_map AS m WHERE m.connection_key = s.connection_key AND m.listener_name ~ '^__#topic') LIMIT 1\n               ),",
      ],
    ],
  },
  {
    name: "numbers the messages of a channel with gaps",
    changes: [["row_number() OVER (PARTITION BY r.connection_key ORDER BY r.id)", "row_number() OVER (ORDER BY r.id)"]],
  },
  {
    name: "forgets what waits when a listener comes",
    changes: [["SET owner = v_names[1]\n", "SET owner = owner\n"]],
  },
  {
    name: "truncates a slot that is not handed over",
    fn: "rotate_peer_outbox",
    changes: [
      [
        "IF EXISTS (\n    SELECT FROM hawser.peer_outbox AS o",
        "IF false AND EXISTS (\n    SELECT FROM hawser.peer_outbox AS o",
      ],
    ],
  },
];

it.each(mutants)(
  "catches one that $name",
  { timeout: 240_000 },
  async ({ fn = "hand_over_enqueued", changes, ...driver }) => {
    await using database = await testDatabase({ nats: false });
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    const { rows } = await client.query<{ text: string }>(
      "SELECT pg_get_functiondef(oid) AS text FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace AND proname = $1",
      [fn],
    );
    let text = rows[0]!.text;
    for (const [from, to] of changes) {
      expect(text).toContain(from);
      text = text.replaceAll(from, () => to);
    }
    await client.query(text);
    await client.end();
    await using histories = new PeerHandOver(database.url, driver);
    await histories.open();
    let caught: string | undefined;
    for (let seed = 1; caught === undefined && seed <= seeds; seed++) {
      caught = await histories.run(seed).then(
        () => undefined,
        (error: Error) => `seed ${seed}: ${error.message}`,
      );
    }
    console.log(`${driver.name}: ${caught}`);
    expect(caught).toMatch(/committed|rolled back|twice|has number|again and again|unique/);
  },
);
