/**
 * NOTIFY channels and payloads.
 *
 * Notifications are hints. They can be lost (with a session) or late. A process that depends on them therefore queries
 * again after each new session and at intervals (`pollMs`).
 */
import { createHash } from "node:crypto";
import { type ListenerRow, notifyChannels } from "../../../generated/ts/rows/peer.js";
import { storeConstants } from "../../../generated/ts/settings/peer.js";
import { scheduleConstants } from "../../../generated/ts/settings/queue.js";
import type { Database } from "./database.js";

/** Change of a directory row. */
export interface CatalogChange {
  readonly topic: string;
  readonly addr: string;
  /** Name of the listener. */
  readonly listenerName: string;
  readonly operation: (typeof operations)[number];
}

const operations = ["insert", "update", "delete"] as const;

/** NOTIFY channel of the directory. */
export const catalogChannel = notifyChannels.listener;

/** NOTIFY channel of the mesh secrets. Its notifications have no content: a secret was added or removed. */
export const secretsChannel = notifyChannels.meshSecret;

/** NOTIFY channel of what becomes due soon: schedules that were changed, and messages that were enqueued for later. */
export const dueChannel = scheduleConstants.channel;

/**
 * NOTIFY channel for messages stored for a listener. It contains a hash of the name, since names can be longer than a
 * Postgres identifier.
 */
export function messageChannel(listenerName: string): string {
  const digits = createHash("sha256").update(listenerName).digest("hex").slice(0, 40);
  return storeConstants.messageChannelPrefix + digits;
}

/** Parses a notification of {@link catalogChannel}; undefined if it is not one of ours. */
export function parseCatalogChange(payload: string): CatalogChange | undefined {
  try {
    const row: Pick<ListenerRow, "topic" | "addr" | "listener_name"> & Pick<CatalogChange, "operation"> =
      JSON.parse(payload);
    if (typeof row.topic !== "string" || typeof row.addr !== "string" || typeof row.listener_name !== "string")
      return undefined;
    if (!operations.includes(row.operation)) return undefined;
    return { topic: row.topic, addr: row.addr, listenerName: row.listener_name, operation: row.operation };
  } catch {
    return undefined;
  }
}

/** Largest id of a channel: an int4. */
const maxChannelId = 2 ** 31 - 1;

/** Parses a notification of a {@link messageChannel}: the channel's id; undefined for any other payload. */
export function parseAnnouncement(payload: string): number | undefined {
  if (!/^[1-9]\d{0,9}$/.test(payload)) return undefined;
  const channelId = Number(payload);
  return channelId <= maxChannelId ? channelId : undefined;
}

/** Part of the NOTIFY queue, of all databases of the server, from which on Hawser's functions leave notifications out. */
export const notifyQueueLimit = 0.9;

/** Use of the NOTIFY queue, and the session that probably holds it. */
export interface NotifyQueue {
  /** Used part, from 0 to 1. At 1 each COMMIT with a notification fails. */
  readonly used: number;
  /**
   * Session with the oldest transaction. A session that listens keeps what was notified since then in the queue. Postgres
   * does not say which sessions listen, and shows transactions of other roles to members of pg_read_all_stats only.
   */
  readonly holder: {
    readonly pid: number;
    readonly role: string;
    readonly application: string;
    readonly seconds: number;
  } | null;
}

/** Query for {@link NotifyQueue}. */
export const notifyQueueSql = `
  SELECT pg_catalog.pg_notification_queue_usage() AS used, (
    SELECT json_build_object('pid', a.pid, 'role', a.usename, 'application', a.application_name,
                             'seconds', extract(epoch FROM clock_timestamp() - a.xact_start))
      FROM pg_catalog.pg_stat_activity AS a
     WHERE a.backend_type = 'client backend' AND a.xact_start IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
     ORDER BY a.xact_start LIMIT 1
  ) AS holder`;

/** Peer to notify, and the id of the channel that has changed. */
export type Announced = readonly [name: string, channelId: number];

/**
 * Notifies peers of stored messages in a channel, or of its new owner. Uses its own statement after the commit, because
 * NOTIFY serialises commits. Best effort: it does not throw, and slow polls find changes that were not announced.
 */
export async function announce(database: Database, announced: readonly Announced[]): Promise<void> {
  if (announced.length === 0) return;
  try {
    await database.query("announce channels", {
      name: "hawser.announce",
      text: "SELECT pg_notify(a.channel, a.payload) FROM unnest($1::text[], $2::text[]) AS a (channel, payload)",
      values: [announced.map(([name]) => messageChannel(name)), announced.map(([, channelId]) => String(channelId))],
    });
  } catch (err) {
    database.logger.debug({ err, channels: announced.length }, "could not announce channels; their peers will poll");
  }
}
