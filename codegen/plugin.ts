import { create, createFileRegistry, type DescFile, fromBinary, toBinary } from "@bufbuild/protobuf";
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
import { SpecError } from "./model/spec-error.js";
import { SchemaError } from "./nats-options/schema-node.js";

/** A file that a generator makes, its path relative to the folder that it is made in. */
export interface GeneratedFile {
  readonly path: string;
  readonly content: string;
}

/** Makes files from the spec. Pure but for reading files that the spec names. */
export type Generator = (spec: Spec) => readonly GeneratedFile[];

/**
 * Runs a generator as a protoc plugin: a CodeGeneratorRequest on stdin, the response on stdout.
 *
 * A mistake in the spec is the response's error, which buf prints before it exits with a status other than zero. A
 * defect of the generator ends the process, with its stack on stderr.
 */
export async function runPlugin(generate: Generator): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
  }
  const request = fromBinary(CodeGeneratorRequestSchema, Buffer.concat(chunks));
  const response = toBinary(CodeGeneratorResponseSchema, answer(request, generate));
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(response, (error) => (error ? reject(error) : resolve()));
  });
}

/** The response to one request. */
export function answer(request: CodeGeneratorRequest, generate: Generator): CodeGeneratorResponse {
  const response = create(CodeGeneratorResponseSchema, {
    supportedFeatures: BigInt(
      CodeGeneratorResponse_Feature.PROTO3_OPTIONAL | CodeGeneratorResponse_Feature.SUPPORTS_EDITIONS,
    ),
    minimumEdition: Edition.EDITION_PROTO2,
    maximumEdition: Edition.EDITION_2024,
  });
  try {
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: request.protoFile }));
    const asked = new Set(request.fileToGenerate);
    const files: DescFile[] = [...registry.files].filter((file) => asked.has(file.proto.name));
    files.sort((one, other) => (one.proto.name < other.proto.name ? -1 : 1));
    const generated = generate(readSpec(registry, files));
    for (const { path, content } of generated) {
      response.file.push(create(CodeGeneratorResponse_FileSchema, { name: path, content }));
    }
  } catch (error) {
    if (!(error instanceof SpecError || error instanceof SchemaError)) {
      throw error;
    }
    response.error = error.message;
  }
  return response;
}
