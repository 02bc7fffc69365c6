/**
 * The program of a process that makes a database look as if very many peers used it. Most are simulated: each has what a
 * peer has in Postgres (its rows, its lease and its notifications in a session of its own, channels to others) and asks what
 * an idle one asks, after docs/store-protocol.md. The others are real, with connections of their own.
 */

import { createHash, randomBytes, randomUUID } from "node:crypto";
import type pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { newPeer } from "../peers.js";
import { connected } from "../postgres.js";
import { serveRequests } from "../worker.js";

/** Size of a crowd of peers: the simulated ones, their sessions, and the real ones. */
export interface Crowd {
  readonly databaseUrl: string;
  readonly simulated: number;
  /** Sessions of the simulated peers. Fewer sessions than peers are shared, as by the peers of one process. */
  readonly sessions: number;
  readonly real: number;
}

/** Channels from each simulated peer to others. */
const channelsOfEach = 5;

/** Peers that start concurrently. */
const comingAtOnce = 8;

const sessions: pg.Client[] = [];
const peers: ReturnType<typeof newPeer>[] = [];
const timers: NodeJS.Timeout[] = [];
let simulated = 0;

const nameOf = (number: number): string => `crowd-${number}`;

/** Runs the statements of a peer's start, then repeats those of an idle peer. */
async function simulate(session: pg.Client, number: number): Promise<void> {
  const name = nameOf(number);
  const others = Array.from({ length: channelsOfEach }, (_, nth) => nameOf(Math.max(0, number - nth - 1)));
  const life = randomBytes(8).readBigInt64BE();
  const taken = await session.query("SELECT epoch FROM hawser.own_name($1, $2, $3)", [name, randomUUID(), life]);
  await session.query("SELECT FROM hawser.raise_fence($1, $2)", [name, taken.rows[0].epoch]);
  const digits = createHash("sha256").update(name).digest("hex").slice(0, 40);
  await session.query(
    `LISTEN hawser_listeners; LISTEN hawser_mesh_secret; LISTEN ${storeConstants.messageChannelPrefix}${digits}`,
  );
  await session.query(
    "SELECT FROM hawser.enter_directory($1, $2, $3, 1000000, true, ARRAY[$1::text], ARRAY[false], true, NULL, NULL, NULL)",
    [name, taken.rows[0].epoch, `127.0.0.1:${1 + number}`],
  );
  await session.query(
    `WITH channel AS (
       SELECT k.channel_id FROM unnest($2::text[]) AS o (name), hawser.open_channel($1, $1, o.name) AS k
     )
     INSERT INTO hawser_peer_data.cursors (channel_id, epoch, number) SELECT c.channel_id, 1, 1 FROM channel AS c
     ON CONFLICT DO NOTHING`,
    [name, others],
  );
  await session.query(
    `INSERT INTO hawser_peer_data.routes (sender_key, listener_topic, listener_name, addr, max_message_bytes)
     SELECT DISTINCT $1::text || ':' || $1::text, o.name, o.name, '127.0.0.1:1', 1000000 FROM unnest($2::text[]) AS o (name)`,
    [name, others],
  );
  const ask = async (): Promise<void> => {
    const prepared = (text: string, values: unknown[]) => session.query({ name: text.slice(0, 40), text, values });
    await prepared("SELECT name, epoch FROM hawser_peer_data.peers WHERE name = ANY ($1::text[])", [[name]]);
    await prepared(
      `SELECT channel_id FROM hawser_peer_data.channels AS m WHERE m.listener_name = $1 AND (
         SELECT s.number FROM hawser_peer_data.stored_messages AS s WHERE s.channel_id = m.channel_id
          ORDER BY s.channel_id, s.epoch, s.number LIMIT 1) IS NOT NULL`,
      [name],
    );
    await prepared("SELECT * FROM hawser_peer_data.listeners WHERE topic = ANY ($1::text[])", [others]);
  };
  // Told when the session ends, which ends the process.
  timers.push(setInterval(() => void ask().catch(() => undefined), polls.everyMs));
}

const requests = {
  /** Resolves when so many are there. Those that were there stay. */
  async grow({ databaseUrl, simulated: wanted, sessions: count, real }: Crowd): Promise<void> {
    while (sessions.length < count) sessions.push(await connected(databaseUrl));
    await Promise.all(
      Array.from({ length: comingAtOnce }, async () => {
        while (simulated < wanted) {
          const number = simulated++;
          await simulate(sessions[number % count]!, number);
        }
      }),
    );
    while (peers.length < real) {
      const name = `real-${peers.length}`;
      const url = new URL(databaseUrl);
      // Another address: so it shares no connection with the others.
      url.searchParams.set("application_name", name);
      const peer = newPeer(name, url.href);
      peers.push(peer);
      await peer.handle(peer.topic, () => undefined);
      await peer.start();
    }
  },
};

/** Requests that the crowd's process answers. */
export type CrowdRequests = typeof requests;

serveRequests(requests, async () => {
  for (const timer of timers) clearInterval(timer);
  await Promise.all(peers.map((peer) => peer.stop()));
  await Promise.all(sessions.map((session) => session.end()));
});
