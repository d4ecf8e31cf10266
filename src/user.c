/*-------------------------------------------------------------------------
 *
 * user.c
 *		Users' keys: bigint and uuid ids side by side in 16 bytes.
 *
 * A bigint is embedded in a uuid whose high half is zero.  No uuid of RFC 9562
 * looks so (the version nibble is in the high half), but the nil uuid and
 * hand-made ones do: they are refused at the edge, for they would be taken for
 * somebody else.
 *
 * Functions that take a user have a variant for text as well: drivers that
 * send parameters without a type would find them ambiguous otherwise.  What is
 * written as a whole number is a bigint user, anything else must be a uuid.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "eros.h"
#include "fmgr.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

PG_FUNCTION_INFO_V1(eros_user_key);
PG_FUNCTION_INFO_V1(eros_user_bigint);

/* Orders keys for qsort and bsearch. */
int
eros_key_qsort_compare(const void *a, const void *b)
{
	return eros_key_compare((const ErosKey *) a, (const ErosKey *) b);
}

/* Gives the key of a bigint user. */
ErosKey
eros_key_from_bigint(int64 user)
{
	ErosKey key = {0, (uint64) user};

	return key;
}

/* Gives the key of a uuid as EROS's tables store it, whatever user it is. */
ErosKey
eros_key_from_stored(const pg_uuid_t *uuid)
{
	ErosKey key;

	memcpy(&key.hi, uuid->data, 8);
	memcpy(&key.lo, uuid->data + 8, 8);
	key.hi = pg_ntoh64(key.hi);
	key.lo = pg_ntoh64(key.lo);
	return key;
}

/* Gives the key of a uuid user, and refuses the uuids that stand for a bigint. */
ErosKey
eros_key_from_uuid(const pg_uuid_t *uuid)
{
	ErosKey key = eros_key_from_stored(uuid);

	if (eros_key_is_bigint(&key))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("uuid %s cannot be a user",
							   DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)))),
						errdetail("A uuid whose high half is zero stands for a bigint user."),
						errhint("Use uuids of RFC 9562, or bigint ids.")));
	return key;
}

/* Gives the key of a user that is written as text: a whole number or a uuid. */
ErosKey
eros_key_from_text(const text *user)
{
	char *written = text_to_cstring(user);
	Size length = strlen(written);
	Datum value;

	if (length < 32 && strspn(written, "+-0123456789 ") == length)
		return eros_key_from_bigint(
			DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(written))));
	if (length < 32 || strspn(written, "{}-0123456789abcdefABCDEF") != length)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
						errmsg("invalid user id: \"%s\"", written),
						errhint("A user id is a bigint or a uuid.")));
	value = DirectFunctionCall1(uuid_in, CStringGetDatum(written));
	return eros_key_from_uuid(DatumGetUUIDP(value));
}

/* Writes a key as a uuid. */
void
eros_key_to_uuid(const ErosKey *key, pg_uuid_t *uuid)
{
	uint64 hi = pg_hton64(key->hi);
	uint64 lo = pg_hton64(key->lo);

	memcpy(uuid->data, &hi, 8);
	memcpy(uuid->data + 8, &lo, 8);
}

/* Gives a key as a uuid datum, palloc'd. */
Datum
eros_key_get_datum(const ErosKey *key)
{
	pg_uuid_t *uuid = palloc(sizeof(pg_uuid_t));

	eros_key_to_uuid(key, uuid);
	return UUIDPGetDatum(uuid);
}

/* Gives the keys of an array of bigint or uuid users, without the NULLs. */
ErosKey *
eros_keys_from_array(Datum array, Oid element_type, int *nkeys)
{
	bool is_bigint = element_type == INT8OID;
	Datum *elements;
	bool *nulls;
	int nelements;
	ErosKey *keys;
	int n = 0;

	deconstruct_array(DatumGetArrayTypeP(array), element_type, is_bigint ? 8 : UUID_LEN,
					  is_bigint ? FLOAT8PASSBYVAL : false,
					  is_bigint ? TYPALIGN_DOUBLE : TYPALIGN_CHAR, &elements, &nulls, &nelements);
	keys = palloc(sizeof(ErosKey) * Max(nelements, 1));
	for (int i = 0; i < nelements; i++)
	{
		if (nulls[i])
			continue;
		keys[n++] = is_bigint ? eros_key_from_bigint(DatumGetInt64(elements[i]))
							  : eros_key_from_uuid(DatumGetUUIDP(elements[i]));
	}
	pfree(elements);
	pfree(nulls);
	*nkeys = n;
	return keys;
}

/* Gives keys as the array of bigint or uuid that a handler takes. */
Datum
eros_keys_to_array(const ErosKey *keys, int nkeys, ErosKeyType type)
{
	Datum *elements = palloc(sizeof(Datum) * Max(nkeys, 1));

	for (int i = 0; i < nkeys; i++)
		elements[i] = type == EROS_KEY_BIGINT ? Int64GetDatum((int64) keys[i].lo)
											  : eros_key_get_datum(&keys[i]);
	if (type == EROS_KEY_BIGINT)
		return PointerGetDatum(
			construct_array(elements, nkeys, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	return PointerGetDatum(
		construct_array(elements, nkeys, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/* Gives a key as its user would write it, for messages. */
char *
eros_key_to_cstring(const ErosKey *key)
{
	if (eros_key_is_bigint(key))
		return psprintf(INT64_FORMAT, (int64) key->lo);
	return DatumGetCString(DirectFunctionCall1(uuid_out, eros_key_get_datum(key)));
}

/* user_key(bigint) returns uuid */
Datum
eros_user_key(PG_FUNCTION_ARGS)
{
	ErosKey key = eros_key_from_bigint(PG_GETARG_INT64(0));

	PG_RETURN_DATUM(eros_key_get_datum(&key));
}

/* user_bigint(uuid) returns bigint */
Datum
eros_user_bigint(PG_FUNCTION_ARGS)
{
	ErosKey key = eros_key_from_stored(PG_GETARG_UUID_P(0));

	if (!eros_key_is_bigint(&key))
		PG_RETURN_NULL();
	PG_RETURN_INT64((int64) key.lo);
}
