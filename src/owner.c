/*-------------------------------------------------------------------------
 *
 * owner.c
 *		What becomes of handlers when the role that owns them goes.
 *
 * A handler's owner is a column of eros.handler, of which the server knows
 * nothing.  So the utility hook does for handlers what the server does for the
 * objects that it knows:
 *
 *	- DROP ROLE is refused while the role owns a handler in this database;
 *	- DROP OWNED drops the role's handlers in this database;
 *	- REASSIGN OWNED gives them to the other role.
 *
 * A role may own handlers in other databases: there, the handler cannot be
 * called any more, says so, and is disabled by the next eros.clean_up().
 *
 * Owns no state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "eros.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"

/* Finds the roles of a statement, without those that do not exist. */
static List *
role_oids(List *roles)
{
	List *oids = NIL;
	ListCell *lc;

	foreach (lc, roles)
	{
		Oid role = get_rolespec_oid(lfirst_node(RoleSpec, lc), true);

		if (OidIsValid(role))
			oids = lappend_oid(oids, role);
	}
	return oids;
}

/* Runs a statement for a role and another one, as the extension's owner; connected to SPI. */
static void
execute_for_role(const char *sql, Oid role, Oid other)
{
	Oid argtypes[] = {OIDOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(role), ObjectIdGetDatum(other)};

	SPI_execute_with_args(sql, 2, argtypes, values, NULL, false, 0);
}

/* Refuses to drop roles that own handlers in this database. */
static void
refuse_to_drop_owners(DropRoleStmt *stmt)
{
	ListCell *lc;

	/* the server refuses it itself, and does not tell what there is */
	if (!has_createrole_privilege(GetUserId()))
		return;
	foreach (lc, role_oids(stmt->roles))
	{
		ErosRoleScope scope;
		char *handlers = NULL;

		eros_owner_begin(&scope);
		execute_for_role("SELECT string_agg(quote_ident(h.name), ', ' ORDER BY h.name)"
						 " FROM eros.handler h WHERE h.owner = $1 AND $2 IS NOT NULL",
						 lfirst_oid(lc), InvalidOid);
		if (SPI_processed == 1)
			handlers = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		if (handlers != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("role \"%s\" cannot be dropped because some objects depend on it",
							GetUserNameFromId(lfirst_oid(lc), false)),
					 errdetail("It owns these handlers of EROS: %s.", handlers),
					 errhint("Use eros.drop_handler(), REASSIGN OWNED or DROP OWNED.")));
		eros_owner_end(&scope);
	}
}

/*
 * Looks at a utility command before it is executed.  Returns the roles whose
 * handlers it concerns, for eros_owners_after_utility().
 */
List *
eros_owners_before_utility(Node *stmt)
{
	if (!IsA(stmt, DropRoleStmt) && !IsA(stmt, DropOwnedStmt) && !IsA(stmt, ReassignOwnedStmt))
		return NIL;
	if (!OidIsValid(get_extension_oid("eros", true)))
		return NIL;
	if (IsA(stmt, DropOwnedStmt))
		return role_oids(((DropOwnedStmt *) stmt)->roles);
	if (IsA(stmt, ReassignOwnedStmt))
		return role_oids(((ReassignOwnedStmt *) stmt)->roles);
	refuse_to_drop_owners((DropRoleStmt *) stmt);
	return NIL;
}

/* Does with the roles' handlers what a command, which the server has allowed, did with the rest. */
void
eros_owners_after_utility(Node *stmt, List *roles)
{
	ErosRoleScope scope;
	ListCell *lc;

	/* the extension may have been among what was dropped */
	if (roles == NIL || !OidIsValid(get_extension_oid("eros", true)))
		return;
	eros_owner_begin(&scope);
	foreach (lc, roles)
	{
		if (IsA(stmt, DropOwnedStmt))
			execute_for_role("SELECT eros.drop_handler(h.name) FROM eros.handler h"
							 " WHERE h.owner = $1 AND $2 IS NOT NULL",
							 lfirst_oid(lc), InvalidOid);
		else
			execute_for_role("UPDATE eros.handler h SET owner = $2, error = NULL, error_at = NULL"
							 " WHERE h.owner = $1",
							 lfirst_oid(lc),
							 get_rolespec_oid(((ReassignOwnedStmt *) stmt)->newrole, false));
	}
	eros_owner_end(&scope);
	if (IsA(stmt, ReassignOwnedStmt))
		eros_config_changed_on_commit(); /* the extension may be another's now */
}
