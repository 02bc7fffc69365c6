/**
 * Files that the options of the NATS server name: passwords, tokens, seeds, certificates and keys.
 *
 * A role that may alter the server definition chooses the paths, and Hawser reads the files with its own rights. So a
 * file is read only if it is in one of the directories that the operator named, with all symbolic links resolved; and
 * the error for a path outside of them is the same whether the file exists or not. Neither a path nor content is ever
 * shown, because a secret may have been written in place of a path.
 */
import { type FileHandle, lstat, readlink, realpath, stat } from "node:fs/promises";
import { dirname, isAbsolute, sep } from "node:path";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { HawserError } from "../../foundation/errors/index.js";
import { readSmallFile } from "../../foundation/runtime/index.js";

/** The largest file with a secret, a certificate or a key. */
export const maxSecretFileBytes = 1024 * 1024;

/**
 * Maximum number of attempts to read a file. To update files, Kubernetes switches a link to a new directory and removes
 * the old one, perhaps during the read.
 */
const maxAttempts = 3;

/** Options that name files. */
export type FileOption = Extract<keyof CompleteNatsServerOptions, `${string}_path`>;

/** Content of a `.creds` file. */
export interface Creds {
  /** JWT of a user. It is sent to the NATS server, so only a well-formed JWT is accepted. */
  readonly jwt: string;
  /** Seed of the user's NKey, which signs and is never sent. */
  readonly seed: string;
}

const jwtForm = /^-{3,}BEGIN NATS USER JWT-{3,}\s+([\w-]+\.[\w-]+\.[\w-]+)\s+-{3,}END NATS USER JWT-{3,}\s*$/m;
const seedForm = /^-{3,}BEGIN USER NKEY SEED-{3,}\s+([A-Z2-7]+)\s+-{3,}END USER NKEY SEED-{3,}\s*$/m;

/** Reads files below the given directories, and nowhere else. */
export class SecretFiles {
  /**
   * Last started read. Reads run one after another, so that a file system that hangs blocks only one of the few threads
   * with which Node.js reads files.
   */
  #last: Promise<unknown> = Promise.resolve();
  #reading: FileOption | undefined;

  /** @param directories absolute paths; a missing directory contains no files */
  constructor(readonly directories: readonly string[]) {}

  /** Option whose file is being read, or whose read failed last; for the error of a timeout. */
  get reading(): FileOption | undefined {
    return this.#reading;
  }

  /**
   * Content of the file that an option names.
   *
   * @throws HawserError `secret_file` if the file is outside of the directories, missing, not regular, empty,
   * unreadable, or larger than `maxSecretFileBytes`
   */
  async read(option: FileOption, path: string, signal: AbortSignal): Promise<Buffer> {
    const reading = this.#last.then(async () => {
      signal.throwIfAborted();
      this.#reading = option;
      const bytes = await this.#read(option, path);
      this.#reading = undefined;
      return bytes;
    });
    this.#last = reading.catch(() => undefined);
    const bytes = await reading;
    if (bytes.length === 0) throw secretFileError(option, "the file is empty");
    return bytes;
  }

  /**
   * Content as text, without surrounding white space. Several lines or PEM are refused, because such a file is not
   * meant for a NATS server, to which its content is sent: the role that named the file may also have chosen the
   * server.
   *
   * @throws HawserError `secret_file` also if it is not UTF-8, contains line breaks or NUL, or starts as PEM
   */
  async readSecret(option: FileOption, path: string, signal: AbortSignal): Promise<string> {
    const text = await this.#readText(option, path, signal);
    if (text === "") throw secretFileError(option, "the file contains only white space");
    if (text.startsWith("-----BEGIN "))
      throw secretFileError(option, "the file contains a PEM key or certificate, not a secret");
    if (/[\n\v\f\r\0\u0085\u2028\u2029]/.test(text)) {
      throw secretFileError(option, "a secret is one line without NUL, and the file contains more");
    }
    return text;
  }

  /**
   * JWT and seed of a `.creds` file.
   *
   * @throws HawserError `secret_file` also if it is not UTF-8 or not well-formed
   */
  async readCreds(option: FileOption, path: string, signal: AbortSignal): Promise<Creds> {
    const text = await this.#readText(option, path, signal);
    const [jwt, seed] = [jwtForm, seedForm].map((form) => form.exec(text)?.[1]);
    if (jwt === undefined || seed === undefined) {
      const form = "between lines BEGIN NATS USER JWT and BEGIN USER NKEY SEED with their ends";
      throw secretFileError(
        option,
        `it does not contain a JWT and a seed ${form}, as \`nsc generate creds\` writes them`,
      );
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
    for (let attempt = 1; ; attempt++) {
      const real = await this.#locate(option, path);
      try {
        return await readSmallFile(real, maxSecretFileBytes, (opened) => checkPlace(real, opened));
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        const moved = error instanceof MovedError || code === "ENOENT" || code === "ENOTDIR";
        if (moved && attempt < maxAttempts) continue;
        throw secretFileError(
          option,
          moved ? "the file is replaced again and again" : (systemErrorText(code) ?? message),
        );
      }
    }
  }

  /**
   * Returns the resolved path of the file.
   *
   * @throws HawserError `secret_file` if it is missing, or outside of the directories
   */
  async #locate(option: FileOption, path: string): Promise<string> {
    if (!isAbsolute(path)) throw this.#outside(option);
    try {
      const real = await realpath(path);
      if (await this.#isInside(real)) return real;
    } catch {
      if (await this.#isMissingInside(path)) {
        throw secretFileError(option, "the file does not exist in its directory");
      }
    }
    throw this.#outside(option);
  }

  /**
   * True if the path is in one of the directories, and nothing exists there. A dangling link does not count: the error
   * would reveal what exists outside of the directories.
   */
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

  /** True if a resolved path is in one of the directories. */
  async #isInside(real: string): Promise<boolean> {
    for (const directory of this.directories) {
      const root = await realpath(directory).catch(() => undefined);
      if (root === undefined) continue;
      if (real === root || real.startsWith(root.endsWith(sep) ? root : root + sep)) return true;
    }
    return false;
  }

  #outside(option: FileOption): HawserError {
    const list = this.directories.length === 0 ? "none are permitted" : this.directories.join(", ");
    return secretFileError(option, `it names no file in the directories from which files may be read: ${list}`);
  }
}

/** Error if the opened file is no longer the one at the path. */
class MovedError extends Error {}

/**
 * Checks that the opened file is the one at the resolved path, even if something was replaced between the two steps.
 * Linux reports the path of an open file. On other systems the path is resolved again, which leaves a gap for programs
 * that may write into the directory.
 */
async function checkPlace(real: string, opened: FileHandle): Promise<void> {
  const place = await readlink(`/proc/self/fd/${opened.fd}`).catch(() => undefined);
  if (place === real) return;
  if (place !== undefined || (await realpath(real)) !== real) throw new MovedError();
  const [there, file] = [await stat(real), await opened.stat()];
  if (there.dev !== file.dev || there.ino !== file.ino) throw new MovedError();
}

/** Error for a file that cannot be used. @param rule its fault, without path and content */
export function secretFileError(option: FileOption, rule: string): HawserError {
  return new HawserError("secret_file", `the file of option "${option}" cannot be used: ${rule}`, {
    detail: `${option}: ${rule}.`,
  });
}

/** Text for a system error, without the path that the message of Node.js contains. Undefined without a code. */
function systemErrorText(code: string | undefined): string | undefined {
  if (code === undefined) return undefined;
  return code === "EACCES" || code === "EPERM"
    ? "the user of this process may not read it"
    : `reading failed (${code})`;
}
