/**
 * CodeGeneratorRequests for plugins, made from proto files by buf as in a real run.
 */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { create, fromBinary } from "@bufbuild/protobuf";
import {
  type CodeGeneratorRequest,
  CodeGeneratorRequestSchema,
  type FileDescriptorProto,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { answer, type SpecGenerator } from "../../../codegen/plugin.js";

const run = promisify(execFile);

export const bufScript = createRequire(import.meta.url).resolve("@bufbuild/buf/bin/buf");

const projectRoot = fileURLToPath(new URL("../../..", import.meta.url));

/**
 * Compiles proto files, given by their paths, beside the spec's options and the rules of `buf.validate`.
 *
 * @returns all their descriptors, dependencies first
 */
export async function compile(protos: Readonly<Record<string, string>>): Promise<FileDescriptorProto[]> {
  const folder = await mkdtemp(join(tmpdir(), "hawser-codegen-"));
  try {
    await writeModule(folder, protos);
    return await build(folder, join(folder, "image.binpb"));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The descriptors of the project's own spec, dependencies first. */
export async function compileProject(): Promise<FileDescriptorProto[]> {
  const folder = await mkdtemp(join(tmpdir(), "hawser-codegen-"));
  try {
    return await build(projectRoot, join(folder, "image.binpb"));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function build(folder: string, image: string): Promise<FileDescriptorProto[]> {
  await run(process.execPath, [bufScript, "build", "--output", image], { cwd: folder });
  // A buf image is a FileDescriptorSet with further fields.
  return fromBinary(FileDescriptorSetSchema, await readFile(image)).file;
}

/** Writes a module of proto files into a folder: `buf.yaml`, the files, the spec's options and the rules. */
async function writeModule(folder: string, protos: Readonly<Record<string, string>>): Promise<void> {
  for (const [from, to] of [
    ["proto/hawser/spec", "proto/hawser/spec"],
    ["proto/options/validate/buf", "proto/buf"],
  ] as const) {
    await cp(join(projectRoot, from), join(folder, to), { recursive: true });
  }
  await writeFile(join(folder, "buf.yaml"), "version: v2\nmodules:\n  - path: proto\n");
  for (const [path, text] of Object.entries(protos)) {
    const file = join(folder, "proto", path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
  }
}

/** Request of buf to a plugin: to generate code for these files, which come with all that they import. */
export function requestFor(
  descriptors: readonly FileDescriptorProto[],
  files: readonly string[],
  parameter = "",
): CodeGeneratorRequest {
  return create(CodeGeneratorRequestSchema, {
    fileToGenerate: [...files],
    parameter,
    protoFile: withImports(descriptors, files),
  });
}

/** `descriptors` has imports before what imports them, so that one pass from the end finds them all. */
function withImports(descriptors: readonly FileDescriptorProto[], files: readonly string[]): FileDescriptorProto[] {
  const needed = new Set(files);
  return descriptors
    .toReversed()
    .filter((file) => {
      if (needed.has(file.name)) {
        for (const imported of file.dependency) {
          needed.add(imported);
        }
      }
      return needed.has(file.name);
    })
    .toReversed();
}

/** Runs a generator; its files by path. Throws what it refuses. */
export async function generated(
  request: CodeGeneratorRequest,
  generator: SpecGenerator,
): Promise<Record<string, string>> {
  const response = await answer(request, generator);
  if (response.error !== "") {
    throw new Error(response.error);
  }
  return Object.fromEntries(response.file.map((file) => [file.name, file.content]));
}

/** Reason for which a generator refuses the request; empty if it does not. */
export async function refusal(request: CodeGeneratorRequest, generator: SpecGenerator): Promise<string> {
  return (await answer(request, generator)).error;
}
