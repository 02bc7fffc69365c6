/**
 * The role of a real server whose sessions end.
 */
import { describe, expect, it } from "vitest";
import { startProxy } from "../../store/support/proxy.js";
import { testDatabase } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { rowsOf } from "../../support/on-server.js";
import { watchRole } from "./watched-role.js";

describe.concurrent("the role of Postgres", () => {
  it("does not change when the session alone is ended", async (test) => {
    await using database = await testDatabase();
    const { roles, log } = await watchRole(test, database.url);
    const sessions = () =>
      rowsOf(
        database.url,
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity " +
          "WHERE datname = current_database() AND application_name = 'hawser serve: lead'",
      );
    const [first] = await sessions();
    await eventually("there is another session", async () => {
      const [second] = await rowsOf(
        database.url,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser serve: lead'",
      );
      return second !== undefined && second["pid"] !== first!["pid"];
    });
    expect(roles()).toEqual(["primary"]);
    expect(log.messages("warn")).toEqual([]);
  });

  it("does not change when the session ends in the middle of a reading", async (test) => {
    await using database = await testDatabase();
    await using proxy = await startProxy(database.url);
    const { roles, log } = await watchRole(test, proxy.url);
    proxy.keepAnswersBack();
    const [row] = await rowsOf(database.url, "SELECT clock_timestamp()::text AS now");
    const readingSince = `SELECT FROM pg_stat_activity WHERE datname = current_database()
      AND application_name = 'hawser serve: lead' AND query_start > '${row!["now"]}'`;
    await eventually(
      "a reading waits for its answer",
      async () => (await rowsOf(database.url, readingSince)).length === 1,
    );
    proxy.cut();
    await eventually("a session reads whose answers arrive", async () => {
      const rows = await rowsOf(
        database.url,
        `${readingSince} AND backend_start > '${row!["now"]}' AND state = 'idle'`,
      );
      return rows.length === 1;
    });
    expect(roles()).toEqual(["primary"]);
    expect(log.messages("warn")).toEqual([]);
  });
});
