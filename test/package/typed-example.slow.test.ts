/**
 * examples/typed/ as a user gets it: the package is packed, the folder copied beside it, and then done what its README says.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { pack, run } from "./pack.js";

it("installs, generates, type-checks strictly and runs", { timeout: 600_000 }, async () => {
  const parent = temporaryDirectory();
  const { tarball } = await pack(join(parent, "hawser"));
  const project = join(parent, "project");
  mkdirSync(project);
  cpSync(join(projectDirectory, "examples", "typed"), project, { recursive: true });
  const manifestFile = join(project, "package.json");
  const manifest = readFileSync(manifestFile, "utf8");
  writeFileSync(manifestFile, manifest.replace(/"hawser": "[^"]+"/, `"hawser": ${JSON.stringify(`file:${tarball}`)}`));

  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"], project);
  await run("npx", ["buf", "lint"], project);
  await run("npx", ["buf", "generate"], project);
  await run("npm", ["run", "check"], project);
  const env = { HAWSER_DATABASE_URL: undefined, HAWSER_NATS_URL: undefined, NO_COLOR: "1" };
  const printed = await run("npm", ["start", "--silent"], project, env);
  expect(printed.trim().split("\n")).toEqual([
    "SQL function: order 17 of north, 4950 cents, 3 things",
    "SQL function: order 18 of south, 120 cents, 5 things",
    "NATS: buoy costs 24 cents",
    "NATS: rope costs 1299 cents",
    "Peer: order 17 weighs 12.5 kg",
    "Peer: order 18 weighs 0.75 kg",
    "RPC over peers: 7 ropes in stock",
    "RPC over NATS: 7 ropes in stock",
  ]);

  const sources = ["src/main.ts", "src/routes.ts", "src/stack.ts"].map((file) =>
    readFileSync(join(project, file), "utf8"),
  );
  expect(sources.join("\n")).not.toMatch(/\bany\b|as unknown|@ts-/);
});
