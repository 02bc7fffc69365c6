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
import type { Logger } from "../runtime/index.js";
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

/** Reads a notification of a {@link messageChannel}: the channel's key; undefined if it is none of ours. */
export function parseAnnouncement(payload: string): number | undefined {
  const connectionKey = Number(payload);
  return Number.isInteger(connectionKey) && connectionKey > 0 ? connectionKey : undefined;
}

/** Announcements in a database. */
export function announcements(database: Database, logger: Logger) {
  return {
    /**
     * Tells a listener that messages were stored for it: a statement of its own, after the commit, because NOTIFY would
     * serialise commits. Best effort: it does not throw, and the listener's slow poll finds what nobody announced.
     */
    async announce(listenerName: string, connectionKey: number): Promise<void> {
      try {
        await database.query(`announce messages to "${listenerName}"`, {
          name: "hawser.announce",
          text: "SELECT pg_notify($1, $2)",
          values: [messageChannel(listenerName), String(connectionKey)],
        });
      } catch (err) {
        logger.debug(
          { err, listenerName, connectionKey },
          "could not announce stored messages; its listener will poll",
        );
      }
    },
  };
}
