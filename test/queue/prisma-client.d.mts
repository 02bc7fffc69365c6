/**
 * The types of `prisma-client.mjs`, as far as `prisma generate` makes them of a schema without models.
 */
import type { ITXClientDenyList, PrismaClientOptions, PrismaPromise, Sql } from "@prisma/client/runtime/client";

export declare class PrismaClient {
  constructor(options: PrismaClientOptions);
  $connect(): Promise<void>;
  $disconnect(): Promise<void>;
  // biome-ignore-start lint/suspicious/noExplicitAny: as they are generated.
  $executeRaw<T = unknown>(query: TemplateStringsArray | Sql, ...values: any[]): PrismaPromise<number>;
  $executeRawUnsafe<T = unknown>(query: string, ...values: any[]): PrismaPromise<number>;
  $queryRaw<T = unknown>(query: TemplateStringsArray | Sql, ...values: any[]): PrismaPromise<T>;
  $queryRawUnsafe<T = unknown>(query: string, ...values: any[]): PrismaPromise<T>;
  $transaction<P extends PrismaPromise<any>[]>(promises: [...P]): Promise<unknown[]>;
  // biome-ignore-end lint/suspicious/noExplicitAny: see above
  $transaction<R>(work: (client: Omit<PrismaClient, ITXClientDenyList>) => Promise<R>): Promise<R>;
}
