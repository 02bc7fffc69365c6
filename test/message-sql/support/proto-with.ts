/** A file with a message that has these fields. */
export const protoWith = (fields: string): string => `syntax = "proto3"; package acme.v1;
  import "google/protobuf/any.proto"; import "google/protobuf/struct.proto";
  import "buf/validate/validate.proto"; import "hawser/v1/topic.proto";
  message A { option (hawser.v1.topic) = {topic: "a"}; ${fields} }`;
