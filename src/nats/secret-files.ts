/**
 * The files that the options of the server name: passwords, tokens, seeds, certificates and keys.
 *
 * A role that may alter the server chooses the paths, and Hawser reads them with its own rights. So a file is read only if
 * it lies, all symbolic links followed, in one of the directories that the operator named; and what is told of a path
 * outside is the same whether there is something or not. Neither a path nor a content is ever shown: a secret may have
 * been written in place of a path.
 */
import { type FileHandle, lstat, readlink, realpath, stat } from "node:fs/promises";
import { dirname, isAbsolute, sep } from "node:path";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { HawserError } from "../errors/index.js";
import { readSmallFile } from "../files/index.js";

const { maxSecretFileBytes } = gatewayConstants;

/** Kubernetes turns a link to a new directory and removes the old one, perhaps while we are between the two. */
const maxTries = 3;

/** The options that name files. */
export type FileOption = Extract<keyof CompleteNatsServerOptions, `${string}_path`>;

/** What a `.creds` file holds. */
export interface Creds {
  /** Of a user. Goes to the NATS server, so it has the form of a JWT and nothing else. */
  readonly jwt: string;
  /** Never leaves: signs. */
  readonly seed: string;
}

const jwtForm = /^-{3,}BEGIN NATS USER JWT-{3,}\s+([\w-]+\.[\w-]+\.[\w-]+)\s+-{3,}END NATS USER JWT-{3,}\s*$/m;
const seedForm = /^-{3,}BEGIN USER NKEY SEED-{3,}\s+([A-Z2-7]+)\s+-{3,}END USER NKEY SEED-{3,}\s*$/m;

/** Reads files below the given directories and from nowhere else. */
export class SecretFiles {
  /** One after another: a file system that does not answer keeps one of the few threads that Node reads with, not all. */
  #last: Promise<unknown> = Promise.resolve();
  #reading: FileOption | undefined;

  /** @param directories absolute; one that is not there (yet) holds no files */
  constructor(readonly directories: readonly string[]) {}

  /** The option whose file is being read, for the error of a wait that took too long; or was read last, if that failed. */
  get reading(): FileOption | undefined {
    return this.#reading;
  }

  /**
   * The content of the file that an option names.
   *
   * @throws HawserError `secret_file` if it is outside, missing, no regular file, empty, unreadable or has more than
   * `maxSecretFileBytes`
   */
  async read(option: FileOption, path: string, signal: AbortSignal): Promise<Buffer> {
    const mine = this.#last.then(async () => {
      signal.throwIfAborted();
      this.#reading = option;
      const bytes = await this.#read(option, path);
      this.#reading = undefined;
      return bytes;
    });
    this.#last = mine.catch(() => undefined);
    const bytes = await mine;
    if (bytes.length === 0) throw secretFileError(option, "the file is empty");
    return bytes;
  }

  /**
   * The same as text, without the white space around it. What has several lines or is PEM was written for something else:
   * a secret goes to a NATS server that the role which named the file may have chosen, too.
   *
   * @throws HawserError `secret_file` also if it is not UTF-8, has line breaks or NUL within, or begins as PEM
   */
  async readSecret(option: FileOption, path: string, signal: AbortSignal): Promise<string> {
    const text = await this.#readText(option, path, signal);
    if (text === "") throw secretFileError(option, "there is nothing but white space in the file");
    if (text.startsWith("-----BEGIN "))
      throw secretFileError(option, "it holds a key or certificate in PEM, no secret");
    if (/[\n\v\f\r\0\u0085\u2028\u2029]/.test(text)) {
      throw secretFileError(option, "a secret is one line without NUL, and the file holds more");
    }
    return text;
  }

  /**
   * The JWT and the seed of a `.creds` file, as nsc writes it.
   *
   * @throws HawserError `secret_file` also if it is not UTF-8, or not of that form
   */
  async readCreds(option: FileOption, path: string, signal: AbortSignal): Promise<Creds> {
    const text = await this.#readText(option, path, signal);
    const [jwt, seed] = [jwtForm, seedForm].map((form) => form.exec(text)?.[1]);
    if (jwt === undefined || seed === undefined) {
      const form = "between lines BEGIN NATS USER JWT and BEGIN USER NKEY SEED with their ends";
      throw secretFileError(option, `it does not hold a JWT and a seed ${form}, as \`nsc generate creds\` writes them`);
    }
    return { jwt, seed };
  }

  async #readText(option: FileOption, path: string, signal: AbortSignal): Promise<string> {
    const bytes = await this.read(option, path, signal);
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes).trim();
    } catch {
      throw secretFileError(option, "the content of the file is not UTF-8");
    }
  }

  async #read(option: FileOption, path: string): Promise<Buffer> {
    for (let tries = 1; ; tries++) {
      const real = await this.#locate(option, path);
      try {
        return await readSmallFile(real, maxSecretFileBytes, (opened) => checkPlace(real, opened));
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        const moved = error instanceof MovedError || code === "ENOENT" || code === "ENOTDIR";
        if (moved && tries < maxTries) continue;
        throw secretFileError(option, moved ? "the file is being replaced all the time" : (wordsOf(code) ?? message));
      }
    }
  }

  /** Where the file really is. It is inside. */
  async #locate(option: FileOption, path: string): Promise<string> {
    if (!isAbsolute(path)) throw this.#outside(option);
    try {
      const real = await realpath(path);
      if (await this.#isInside(real)) return real;
    } catch {
      if (await this.#isMissingInside(path)) {
        throw secretFileError(option, "there is no such file in its directory");
      }
    }
    throw this.#outside(option);
  }

  /** A link that leads nowhere does not count: that would tell what is not there outside. */
  async #isMissingInside(path: string): Promise<boolean> {
    try {
      if (!(await this.#isInside(await realpath(dirname(path))))) return false;
    } catch {
      return false;
    }
    return lstat(path).then(
      () => false,
      (error: NodeJS.ErrnoException) => error.code === "ENOENT",
    );
  }

  async #isInside(real: string): Promise<boolean> {
    for (const directory of this.directories) {
      const root = await realpath(directory).catch(() => undefined);
      if (root === undefined) continue;
      if (real === root || real.startsWith(root.endsWith(sep) ? root : root + sep)) return true;
    }
    return false;
  }

  #outside(option: FileOption): HawserError {
    const list = this.directories.length === 0 ? "none are allowed" : this.directories.join(", ");
    return secretFileError(option, `it names no file in the directories that files may be read from: ${list}`);
  }
}

class MovedError extends Error {}

/**
 * What was opened is what lies at the real path, whatever was put in the way between the two. Linux tells where an open
 * file is; elsewhere its path is resolved once more, which leaves a gap for programs that may write into the directory.
 */
async function checkPlace(real: string, opened: FileHandle): Promise<void> {
  const place = await readlink(`/proc/self/fd/${opened.fd}`).catch(() => undefined);
  if (place === real) return;
  if (place !== undefined || (await realpath(real)) !== real) throw new MovedError();
  const [there, file] = [await stat(real), await opened.stat()];
  if (there.dev !== file.dev || there.ino !== file.ino) throw new MovedError();
}

/** The error for a file that cannot be used. @param rule what is wrong with it, without path and content */
export function secretFileError(option: FileOption, rule: string): HawserError {
  return new HawserError("secret_file", `the file of option "${option}" cannot be used: ${rule}`, {
    detail: `${option}: ${rule}.`,
  });
}

/** What the system said, without the path that Node's message has. Undefined for our own rules. */
function wordsOf(code: string | undefined): string | undefined {
  if (code === undefined) return undefined;
  return code === "EACCES" || code === "EPERM"
    ? "the user of this process may not read it"
    : `reading failed (${code})`;
}
