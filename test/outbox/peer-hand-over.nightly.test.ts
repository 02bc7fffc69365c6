/** Departures from the rules of the hand-over, each of which its random histories must catch: they show that they can fail. */
import pg from "pg";
import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { type HandOverDriver, PeerHandOver } from "./support/peer-hand-over.js";

const seeds = 400;

interface Mutant extends HandOverDriver {
  readonly name: string;
  readonly fn?: string;
  /** The seed from which on it is caught soon. Default 1. */
  readonly firstSeed?: number;
  /** In the text of the function, and what stands there instead. */
  readonly changes: readonly (readonly [from: string, to: string])[];
}

const insertsTurn =
  "INSERT INTO hawser_data.outbox_turns (sink, turn, owner, pid, done_from, done_to, done_after, series, epoch";
const ofLook = 'NOT pg_visible_in_snapshot(n.xid, coalesce(s."from", p_from))';
const doneAfter =
  "(SELECT t.done_after FROM hawser_data.outbox_turns AS t WHERE t.sink = 1 ORDER BY t.turn DESC LIMIT 1)";
const ofRest = "WHERE g.role = ANY (v_later) OR (v_has_more AND g.last > v_after)";
const behindWaiting = "ORDER BY s.epoch DESC LIMIT 1\n               ),";

const mutants: readonly Mutant[] = [
  {
    name: "reads by id",
    changes: [
      ["AND o.xid >= v_xmax", ""],
      ["AND o.xid >= pg_snapshot_xmax(v_from)", ""],
      ["AND o.xid = ANY (v_xip)", "AND false"],
      [ofLook, `n.id > ${doneAfter}`],
      [ofRest, "WHERE false"],
      ["done_to, NULL, 0, v_series", "done_to, NULL, greatest(v_last.done_after, v_ids[handed]), v_series"],
    ],
  },
  { name: "forgets the rest of a poll", changes: [[ofRest, "WHERE false"]] },
  {
    name: "takes a series for read after its first page",
    changes: [
      [
        "jsonb_set(v_page, '{after}', to_jsonb(v_after))",
        "v_page || jsonb_build_object('from', v_page -> 'to', 'to', NULL)",
      ],
    ],
  },
  {
    name: "forgets a series that is read, while others lag",
    changes: [["ELSE v_page || jsonb_build_object('from', v_page -> 'to', 'to', NULL)", "ELSE '[]'"]],
  },
  { name: "joins a series from where main is", changes: [['coalesce(s."from", p_from)', "p_from"]] },
  { name: "polls a series that does not join", changes: [["coalesce(s.joins, true)", "true"]] },
  { name: "reads pages of all roles", changes: [["n.role = v_page ->> 'role' AND", ""]] },
  {
    name: "has no fence",
    changes: [
      ["v_last.owner <> p_owner", "false"],
      ["v_last.turn + 1", "v_last.turn + 1 + (random() * 1000000)::integer"],
    ],
  },
  {
    name: "moves the position in another transaction than the store",
    savesApart: true,
    changes: [[insertsTurn, insertsTurn.replace("hawser_data.outbox_turns", "public.apart")]],
  },
  {
    name: "gives a key to another listener while older messages of it wait",
    fn: "store_enqueued",
    changes: [[behindWaiting, "AND false LIMIT 1\n               ),"]],
  },
  {
    name: "overtakes what waits for a topic's first listener",
    fn: "store_enqueued",
    changes: [
      [
        behindWaiting,
        "AND NOT EXISTS (SELECT FROM hawser_data.channels AS m WHERE m.channel_id = s.channel_id AND m.listener_name ~ '^__#topic') LIMIT 1\n               ),",
      ],
    ],
  },
  {
    name: "numbers the messages of a channel with gaps",
    fn: "store_enqueued",
    changes: [["row_number() OVER (PARTITION BY r.channel_id ORDER BY r.id)", "row_number() OVER (ORDER BY r.id)"]],
  },
  {
    name: "forgets what waits when a listener comes",
    fn: "adopt_waiting",
    changes: [["SET owner = f.listener_name\n", "SET owner = m.owner\n"]],
  },
  {
    name: "lets two members of a group have one key",
    fn: "claim_messages",
    changes: [["f.key_hash NOT IN (SELECT o.key_hash FROM others AS o)", "true"]],
  },
  {
    name: "writes behind what a member has claimed",
    fn: "store_enqueued",
    changes: [["WHEN m.source_topic = '__#claimed' THEN", "WHEN false THEN"]],
  },
  {
    name: "gives copies to listeners that run, and not to those that are away",
    fn: "store_enqueued",
    changes: [["OR a.durable OR", "OR"]],
  },
  {
    name: "gives copies to durable listeners, and not to others that run",
    fn: "store_enqueued",
    changes: [["OR a.listener_name = ANY (v_running)", ""]],
  },
  {
    name: "gives no group a copy",
    fn: "store_enqueued",
    changes: [["(p.group_name IS NOT NULL OR a.durable", "p.group_name IS NULL AND (a.durable"]],
  },
  {
    name: "gives a group a copy for each member",
    fn: "store_enqueued",
    changes: [
      [
        "CASE WHEN p.group_name IS NULL THEN a.listener_name END AS name, p.group_name AS for_group",
        "a.listener_name AS name, NULL::text AS for_group",
      ],
    ],
  },
  {
    name: "forgets a message for all that finds nobody",
    fn: "store_enqueued",
    changes: [["AND o.destination = ANY (coalesce(v_copied_topics, '{}'))", ""]],
  },
  {
    name: "lets what is enqueued for one listener follow the copies of a group",
    fn: "store_enqueued",
    changes: [["hashtextextended(c.for_group, 1))", "CASE WHEN c.for_group IS NOT NULL THEN 0 END)"]],
  },
  {
    name: "lets a member of another group claim",
    fn: "claim_messages",
    changes: [["w.for_group = CASE WHEN a.of_group THEN p.group_name ELSE '' END", "a.of_group = (w.for_group <> '')"]],
  },
  {
    name: "gives what waits for a group to a listener that comes",
    firstSeed: 90,
    fn: "adopt_waiting",
    changes: [
      ["w.for_group = '' AND EXISTS", "EXISTS"],
      ["AND w.for_group = ''", ""],
    ],
  },
  {
    name: "truncates a segment that is not handed over",
    fn: "outbox_rotate",
    changes: [["OR array_position(v_moved, NULL) IS NOT NULL", ""]],
  },
  {
    name: "truncates what lags behind",
    fn: "outbox_rotate",
    changes: [["AND o.id = ANY (v_moved)", "AND false"]],
  },
  {
    name: "moves what lags behind, and keeps it too",
    fn: "outbox_rotate",
    changes: [["EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;", ""]],
  },
  {
    name: "moves what lags behind as if it were new",
    firstSeed: 300,
    fn: "outbox_rotate",
    changes: [
      ["o.id, o.xid, o.destination", "nextval('hawser_data.outbox_id_seq'), pg_current_xact_id(), o.destination"],
    ],
  },
];

it.each(mutants)(
  "catches one that $name",
  { timeout: 1_200_000 },
  async ({ fn, firstSeed = 1, changes, ...driver }) => {
    await using database = await testDatabase({ nats: false });
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    const { rows } = await client.query<{ text: string }>(
      "SELECT pg_get_functiondef(oid) AS text FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace AND proname = ANY ($1)",
      [fn === undefined ? ["outbox_turn_peers", "outbox_poll"] : [fn]],
    );
    let text = rows.map((row) => row.text).join(";\n");
    for (const [from, to] of changes) {
      expect(text).toContain(from);
      text = text.replaceAll(from, () => to);
    }
    await client.query(text);
    await client.end();
    await using histories = new PeerHandOver(database.url, driver);
    await histories.open();
    let caught: string | undefined;
    for (let seed = firstSeed; caught === undefined && seed < firstSeed + seeds; seed++) {
      caught = await histories.run(seed).then(
        () => undefined,
        (error: Error) => `seed ${seed}: ${error.message}`,
      );
    }
    console.log(`${driver.name}: ${caught}`);
    expect(caught).toMatch(/committed|rolled back|twice|has number|its cursor|again and again|unique|another group/);
  },
);
