import { statSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { version } from "../../src/foundation/runtime/index.js";
import { extensionServer } from "../support/extension-server.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { hawser, jsonLines } from "./support/hawser.js";

const control = "litmus_pgnats.control";
const script = `litmus_pgnats--${version}.sql`;

it("hawser extension installs the files into a server, which then creates the extension", async () => {
  await using server = await extensionServer();
  const { status, stdout, stderr } = await hawser(["extension", "install", "--pg-config", server.pgConfig]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toBe(
    `Wrote ${join(server.extensionDirectory, script)}\nWrote ${join(server.extensionDirectory, control)}\n` +
      "Next, in each database, as a superuser: CREATE EXTENSION IF NOT EXISTS litmus_pgnats;\n" +
      "Then start `hawser serve` for that database.\n",
  );
  await using database = await server.database();
  await onServer(database.url, "CREATE EXTENSION IF NOT EXISTS litmus_pgnats");
  expect(await rowsOf(database.url, "SELECT extversion FROM pg_extension WHERE extname = 'litmus_pgnats'")).toEqual([
    { extversion: version },
  ]);
  const init = await hawser(["init", "--json"], { databaseUrl: database.url });
  expect(jsonLines(init.stdout)).toMatchObject([{ migrations: [], missingPrivileges: [] }]);
  // The server reads them as another user.
  expect(statSync(join(server.extensionDirectory, script)).mode & 0o777).toBe(0o644);
  await hawser(["extension", "uninstall", "--pg-config", server.pgConfig]);
  await using another = await server.database();
  await expect(onServer(another.url, "CREATE EXTENSION litmus_pgnats")).rejects.toThrow(/litmus_pgnats/);
});
