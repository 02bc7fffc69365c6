import type { Logger } from "../runtime/index.js";
import type { Database } from "./database.js";
import { messageChannel } from "./notifications.js";

/** Tells listeners of stored messages. */
export interface Announce {
  /**
   * Tells a listener that messages were stored for it: a statement of its own, after the commit, because NOTIFY would
   * serialise commits. Best effort: it does not throw, and the listener's slow poll finds what nobody announced.
   */
  announce(listenerName: string, connectionKey: number): Promise<void>;
}

/** Announcements in a database. */
export function announcements(database: Database, logger: Logger): Announce {
  return {
    async announce(listenerName, connectionKey) {
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
