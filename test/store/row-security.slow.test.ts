/** As `row-security.test.ts`, for the other tables. */
import { it } from "vitest";
import { type Case, expectNothingLost, withLogin } from "./support/row-security.js";

withLogin();

// Side by side: each waits for seconds until somebody tries again.
it.concurrent.each<Case>([
  { mode: "ENABLE", table: "stored_messages", when: "starts" },
  { mode: "FORCE", table: "workers", when: "starts" },
  { mode: "ENABLE", table: "topics", when: "starts" },
  { mode: "ENABLE", table: "cursors", when: "runs" },
  { mode: "FORCE", table: "cursors", when: "runs" },
  { mode: "FORCE", table: "queue", when: "runs" },
])("$mode on $table while a listener $when loses and dead-letters no message, and names the remedy", expectNothingLost);
