/**
 * Copies of the project, to release in one and to go on in another.
 */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Program, projectDirectory, startCommand } from "../../support/program.js";

/** What programs of a version need: sources, the spec, and programs of tests. */
const parts = [
  ...["src", "generated", "proto", "schema", "codegen", "scripts", "deploy"],
  ...["test/scenarios", "test/peer/support", "test/support"],
  ...["package.json", "tsconfig.json", "buf.yaml", "buf.gen.yaml"],
];

/** Version of the project in a directory of its own. Disposing removes it. */
export class Version implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), "hawser-version-"));

  /** @param from version to copy; default: the checkout */
  constructor(from?: Version) {
    for (const part of parts) {
      mkdirSync(join(this.directory, part, ".."), { recursive: true });
      cpSync(join(from?.directory ?? projectDirectory, part), join(this.directory, part), { recursive: true });
    }
    symlinkSync(join(projectDirectory, "node_modules"), join(this.directory, "node_modules"));
  }

  read(path: string): string {
    return readFileSync(join(this.directory, path), "utf8");
  }

  write(path: string, text: string): void {
    writeFileSync(join(this.directory, path), text);
  }

  /** Replaces a text that the file has. */
  edit(path: string, before: string, after: string): void {
    const text = this.read(path);
    if (!text.includes(before)) throw new Error(`${path} does not have ${JSON.stringify(before)}`);
    this.write(
      path,
      text.replace(before, () => after),
    );
  }

  /** Makes it a version before the first release, also in the checkout of a later one. */
  forgetReleases(): void {
    const migrations = join(this.directory, "schema/migrations");
    for (const file of readdirSync(migrations)) rmSync(join(migrations, file));
    this.write("schema/migrations/1-initial-schema.next.sql", "");
    rmSync(join(this.directory, "schema/released-functions.txt"), { force: true });
  }

  /** Makes `generated/` anew. @throws Error with what the generator says */
  async generate(): Promise<void> {
    await this.#run([join("node_modules", ".bin", "buf"), "generate"]);
  }

  /** Does what a release does with the schema. */
  async freeze(): Promise<void> {
    await this.#run([process.execPath, "--import", "tsx", "scripts/freeze-migration.ts"]);
    await this.generate();
  }

  /** Runs a script of TypeScript, given as text. Resolves with its standard output. */
  async evaluate(script: string): Promise<string> {
    return this.#run([process.execPath, "--import", "tsx", "--input-type=module", "--eval", script]);
  }

  /** Runs the `hawser` command. */
  hawser(args: readonly string[], databaseUrl: string): Program["ended"] {
    const env = { HAWSER_DATABASE_URL: databaseUrl, NO_COLOR: "1" };
    const command = [process.execPath, "--import", "tsx", "src/operating/cli/main.ts", ...args] as const;
    return startCommand(command[0], command.slice(1), { cwd: this.directory, env }).ended;
  }

  async #run([command, ...args]: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await startCommand(command!, args, { cwd: this.directory }).ended;
    if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}:\n${stdout}\n${stderr}`);
    return stdout;
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
