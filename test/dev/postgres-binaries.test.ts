import { chmodSync, cpSync, lstatSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { serverAccount } from "../../src/dev/account.js";
import { packageDirectory, postgresBinaries } from "../../src/dev/postgres/binaries.js";
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
