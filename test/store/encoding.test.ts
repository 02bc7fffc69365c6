import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { install } from "../../src/store/index.js";
import { testServerUrl } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

it("generates SQL in ASCII alone, so that it can be run in a database of any encoding", () => {
  const folder = new URL("../../generated/sql/", import.meta.url);
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".sql"));
  expect(files.length).toBeGreaterThan(5);
  const beyond = files.flatMap((name) =>
    [...readFileSync(new URL(name, folder), "utf8").matchAll(/.*[^\n -~].*/g)].map(([line]) => `${name}: ${line}`),
  );
  expect(beyond).toEqual([]);
});

it("prepares a database that is not UTF-8 for peers", async () => {
  const name = `hawser_latin1_${process.pid}`;
  await onServer(testServerUrl(), `CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`);
  try {
    const url = new URL(testServerUrl());
    url.pathname = `/${name}`;
    await install({ databaseUrl: url.href, nats: false });
    expect(await rowsOf(url.href, "SELECT id FROM hawser.migrations")).toEqual([{ id: 1 }]);
  } finally {
    await onServer(testServerUrl(), `DROP DATABASE ${name} WITH (FORCE)`);
  }
});
