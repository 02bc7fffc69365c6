/**
 * The package with Postgres as npm may leave it. What needs no copy of it is in `postgres-binaries.test.ts`.
 */
import { chmodSync, cpSync, lstatSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { findPostgres, packageDirectory, postgresBinaries } from "../../src/development/dev/postgres/binaries.js";
import { serverAccount } from "../../src/development/dev/server-process.js";
import { giveTo, ordinaryUser } from "../support/other-user.js";
import { startProgram } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

const links = JSON.parse(readFileSync(join(packageDirectory(), "native/pg-symlinks.json"), "utf8")) as {
  target: string;
}[];

/** A copy of the package as npm leaves it when it does not run install scripts: without the library links. */
function packageWithoutLinks(): string {
  const directory = join(temporaryDirectory(), "package");
  cpSync(join(packageDirectory(), "native"), join(directory, "native"), { recursive: true, verbatimSymlinks: true });
  removeLinks(directory);
  return directory;
}

function removeLinks(packaged: string): void {
  for (const { target } of links) rmSync(join(packaged, target), { force: true });
}

function expectLinks(packaged: string): void {
  for (const { target } of links) expect(lstatSync(join(packaged, target)).isSymbolicLink()).toBe(true);
}

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("a package without its links", () => {
  it("is given those that an install script would have made, also where it is another version's", () => {
    const packaged = packageWithoutLinks();
    const ready = () => postgresBinaries(serverAccount(), temporaryDirectory(), packaged);
    expect(ready()).toMatchObject({
      postgres: join(packaged, "native/bin/postgres"),
      version: expect.stringMatching(/^\d+\.\d+$/),
    });
    expectLinks(packaged);

    // Another start makes them at the same time. A link to nowhere does not exist for a look, and does for whoever makes it.
    removeLinks(packaged);
    symlinkSync("nowhere", join(packaged, links[0]!.target));
    expect(ready).not.toThrow();

    removeLinks(packaged);
    vi.stubEnv("HAWSER_POSTGRES_BINARIES", join(packaged, "native/bin"));
    expect(findPostgres(serverAccount(), temporaryDirectory())).toMatchObject({
      postgres: join(packaged, "native/bin/postgres"),
      origin: "HAWSER_POSTGRES_BINARIES",
    });
    expectLinks(packaged);

    rmSync(join(packaged, "native/bin/postgres"));
    expect(ready).toThrow(/do not run on this machine: .*ENOENT.*HAWSER_DATABASE_URL/s);
  });

  it.runIf(serverAccount() !== undefined)("runs as a copy where the server's account may not read it", () => {
    const packaged = packageWithoutLinks();
    chmodSync(packaged, 0o700);
    const privateDirectory = temporaryDirectory();
    const binaries = postgresBinaries(serverAccount(), privateDirectory, packaged);
    expect(binaries.postgres).toBe(join(privateDirectory, "native/bin/postgres"));
  });

  it.runIf(ordinaryUser() !== undefined)("runs as a copy where it is read-only", async () => {
    const privateDirectory = giveTo(ordinaryUser()!, temporaryDirectory());
    const program = startProgram("test/dev/programs/run-binaries.ts", [packageWithoutLinks(), privateDirectory], {
      ...ordinaryUser()!,
      cwd: "/",
    });
    const binaries = JSON.parse(await program.firstLine) as { initdb: string };
    expect(binaries.initdb).toBe(join(privateDirectory, "native/bin/initdb"));
  });
});
