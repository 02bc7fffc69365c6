import { create, createFileRegistry, type DescFile, type FileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type CodeGeneratorRequest,
  CodeGeneratorRequestSchema,
  type CodeGeneratorResponse,
  CodeGeneratorResponse_Feature,
  CodeGeneratorResponse_FileSchema,
  CodeGeneratorResponseSchema,
  Edition,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { readSpec, type Spec } from "./model/spec.js";
import { SchemaError, SpecError } from "./model/spec-error.js";

/** Generated file; its path is relative to the output folder. */
export interface GeneratedFile {
  readonly path: string;
  readonly content: string;
}

/** Generates files from the spec. Its only side effect is reading the files that the spec names. */
export type Generator = (spec: Spec) => readonly GeneratedFile[];

/** {@link Generator} that may use asynchronous libraries. */
export type SpecGenerator = (spec: Spec) => readonly GeneratedFile[] | Promise<readonly GeneratedFile[]>;

/**
 * Generator for any protos.
 *
 * @param registry all files of the request
 * @param files files to generate code for
 * @param parameter options of the plugin
 */
export type FileGenerator = (
  registry: FileRegistry,
  files: readonly DescFile[],
  parameter: string,
) => readonly GeneratedFile[] | Promise<readonly GeneratedFile[]>;

/** Error class for mistakes in the input, as opposed to defects of the generator. */
type Mistake = abstract new (...parts: never[]) => Error;

/**
 * Runs a generator as a protoc plugin: a CodeGeneratorRequest on stdin, the response on stdout.
 *
 * A mistake in the protos is the response's error, which buf prints before it exits with a status other than zero. A
 * defect of the generator ends the process, with its stack on stderr.
 */
export async function runPlugin(generate: FileGenerator, mistakes: readonly Mistake[]): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
  }
  const request = fromBinary(CodeGeneratorRequestSchema, Buffer.concat(chunks));
  const response = toBinary(CodeGeneratorResponseSchema, await respond(request, generate, mistakes));
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(response, (error) => (error ? reject(error) : resolve()));
  });
}

/** Runs a generator of Hawser's own spec. */
export function runSpecPlugin(generate: SpecGenerator): Promise<void> {
  return runPlugin(ofSpec(generate), specMistakes);
}

/** Answers one request with the files generated from Hawser's own spec. */
export function answer(request: CodeGeneratorRequest, generate: SpecGenerator): Promise<CodeGeneratorResponse> {
  return respond(request, ofSpec(generate), specMistakes);
}

const specMistakes = [SpecError, SchemaError];

function ofSpec(generate: SpecGenerator): FileGenerator {
  return (registry, files) => generate(readSpec(registry, files));
}

async function respond(
  request: CodeGeneratorRequest,
  generate: FileGenerator,
  mistakes: readonly Mistake[],
): Promise<CodeGeneratorResponse> {
  const response = create(CodeGeneratorResponseSchema, {
    supportedFeatures: BigInt(
      CodeGeneratorResponse_Feature.PROTO3_OPTIONAL | CodeGeneratorResponse_Feature.SUPPORTS_EDITIONS,
    ),
    minimumEdition: Edition.EDITION_PROTO2,
    maximumEdition: Edition.EDITION_2024,
  });
  try {
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: request.protoFile }));
    const requested = new Set(request.fileToGenerate);
    const files = [...registry.files].filter((file) => requested.has(file.proto.name));
    files.sort((one, other) => (one.proto.name < other.proto.name ? -1 : 1));
    for (const { path, content } of await generate(registry, files, request.parameter)) {
      response.file.push(create(CodeGeneratorResponse_FileSchema, { name: path, content }));
    }
  } catch (error) {
    if (!mistakes.some((mistake) => error instanceof mistake)) throw error;
    response.error = (error as Error).message;
  }
  return response;
}
