/**
 * The primary and the standby that other tests use.
 */
import { existsSync } from "node:fs";
import { expect, it, onTestFinished } from "vitest";
import { answers } from "../support/answers.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { startPrimaryAndStandby } from "../support/standby.js";

/** Read-only transaction: what a standby says to whoever writes. */
const readOnly = "25006";

it("shows what was written on the primary, takes no writes until it is promoted, and ends with it", async () => {
  await using servers = await startPrimaryAndStandby();
  const { primary, standby } = servers;
  const told = "SELECT count(*)::integer AS n, pg_is_in_recovery() AS standby FROM told";
  await onServer(primary.url, "CREATE TABLE told (n integer)", "INSERT INTO told SELECT generate_series(1, 1000)");
  await servers.caughtUp();
  expect(await rowsOf(standby.url, told)).toEqual([{ n: 1000, standby: true }]);
  for (const statement of ["INSERT INTO told VALUES (0)", "CREATE TABLE mine (n integer)"]) {
    await expect(onServer(standby.url, statement)).rejects.toMatchObject({ code: readOnly });
  }
  await primary.kill("SIGKILL");
  await servers.promote();
  await onServer(standby.url, "INSERT INTO told VALUES (2)");
  expect(await rowsOf(standby.url, told)).toEqual([{ n: 1001, standby: false }]);
  await primary.start();
  await servers[Symbol.asyncDispose]();
  expect(await Promise.all([primary.url, standby.url].map(answers))).toEqual([false, false]);
});

it("leaves neither behind when the process that started them is killed", async () => {
  const program = startProgram("test/dev/programs/run-standby.ts");
  onTestFinished(() => void program.child.kill("SIGKILL"));
  const { urls, directories } = JSON.parse(await program.firstLine) as { urls: string[]; directories: string[] };
  expect(await Promise.all(urls.map(answers))).toEqual([true, true]);
  program.child.kill("SIGKILL");
  await program.ended;
  for (const url of urls) await eventually(`${url} has stopped`, async () => !(await answers(url)));
  for (const directory of directories) await eventually(`${directory} is gone`, () => !existsSync(directory));
});
