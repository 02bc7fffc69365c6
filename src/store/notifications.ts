/**
 * NOTIFY: the channels' names, and what their payloads say.
 *
 * Notifications are hints. They can be missed (a lost session) or come late; a process that needs to know reads again after
 * each new session, and from time to time (`pollMs`).
 */
import { createHash } from "node:crypto";
import { notifyChannels, type TopicAddrRow } from "../../generated/ts/rows/peer.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import type { Database } from "./database.js";

/** A row of the directory was written or taken out. */
export interface CatalogChange {
  readonly topic: string;
  readonly addr: string;
  /** The listener's name. */
  readonly clientName: string;
  readonly operation: "insert" | "update" | "delete";
}

/** The NOTIFY channel of the directory. */
export const catalogChannel = notifyChannels.topicAddr;

/** The NOTIFY channel of the mesh secrets. What it says is only that one was added or taken away. */
export const secretsChannel = notifyChannels.meshSecret;

/** The NOTIFY channel that tells when a relay of the outbox for peers has ended. */
export const relayChannel = outboxConstants.peerRelayChannel;

/**
 * The NOTIFY channel on which a listener hears of stored messages. A name may be longer than Postgres lets a channel be,
 * so its hash stands for it.
 */
export function messageChannel(listenerName: string): string {
  const digits = createHash("sha256").update(listenerName).digest("hex").slice(0, 40);
  return storeConstants.messageChannelPrefix + digits;
}

/** Reads a notification of {@link catalogChannel}; undefined if it is none of ours. */
export function parseCatalogChange(payload: string): CatalogChange | undefined {
  try {
    const row: Pick<TopicAddrRow, "topic" | "addr" | "client_name"> & Pick<CatalogChange, "operation"> =
      JSON.parse(payload);
    if (typeof row.topic !== "string" || typeof row.addr !== "string" || typeof row.client_name !== "string")
      return undefined;
    return { topic: row.topic, addr: row.addr, clientName: row.client_name, operation: row.operation };
  } catch {
    return undefined;
  }
}

/** The greatest key of a channel: an int4. */
const maxConnectionKey = 2 ** 31 - 1;

/** Reads a notification of a {@link messageChannel}: the channel's key; undefined if the payload is none, written as Hawser writes it. */
export function parseAnnouncement(payload: string): number | undefined {
  if (!/^[1-9]\d{0,9}$/.test(payload)) return undefined;
  const connectionKey = Number(payload);
  return connectionKey <= maxConnectionKey ? connectionKey : undefined;
}

/** The name of a peer, and the key of a channel in which it has an interest. */
export type Announced = readonly [name: string, connectionKey: number];

/**
 * Tells peers that messages were stored in a channel, or that it has another owner: a statement of its own, after the commit,
 * because NOTIFY would serialise commits. Best effort: it does not throw, and slow polls find what nobody announced.
 */
export async function announce(database: Database, told: readonly Announced[]): Promise<void> {
  if (told.length === 0) return;
  try {
    await database.query("announce channels", {
      name: "hawser.announce",
      text: "SELECT pg_notify(a.channel, a.payload) FROM unnest($1::text[], $2::text[]) AS a (channel, payload)",
      values: [told.map(([name]) => messageChannel(name)), told.map(([, connectionKey]) => String(connectionKey))],
    });
  } catch (err) {
    database.logger.debug({ err, channels: told.length }, "could not announce channels; their peers will poll");
  }
}
