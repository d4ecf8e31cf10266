# DDL that needs a database, or the extension, for itself: EROS gives way, whatever it is doing, and
# goes on afterwards where it still may.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main');
my $eros_there = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eros %' AND datname = '%s'};

# Makes a database in which a worker is in the middle of a call that takes an hour.
sub busy_database
{
	my ($db) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	make_busy($db);
	return;
}

# Has a worker of the database be in the middle of a call that takes an hour.
sub make_busy
{
	my ($db) = @_;

	create_eros($node, $db);
	soon_idle($node, $db);
	sleeping_handler($node, $db);
	$node->safe_psql($db, 'SELECT eros_touch(1)');
	polls_to($node, $db, computing(), "a worker is at work in database $db");
	return;
}

# Tests that a command succeeds while a worker is at work in the database.
sub succeeds
{
	my ($in, $sql) = @_;
	my ($status, $stdout, $stderr) = $node->psql($in, $sql);

	is($status, 0, "with a worker at work: $sql") or diag($stderr);
	return;
}

# Tests that none of EROS's processes is, or comes to be, in a database.
sub comes_to_be_left
{
	my ($db, $when) = @_;

	return polls_to($node, 'postgres', sprintf($eros_there =~ s/'eros %'/'eros %%'/r, $db),
		"EROS has left database $db $when", 0);
}

# the end of a database
busy_database('one');
succeeds('postgres', 'DROP DATABASE one');
busy_database('one');
succeeds('postgres', 'DROP DATABASE one WITH (FORCE)');
polls_to($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^eros (scheduler|worker)'},
	'no scheduler and no worker is left', 0);

# a new name
busy_database('one');
succeeds('postgres', 'ALTER DATABASE one RENAME TO uno');
polls_to($node, 'uno', computing(), 'EROS goes on in the renamed database');

# a copy
succeeds('postgres', 'CREATE DATABASE copy TEMPLATE uno');
polls_to($node, 'uno', computing(), 'EROS goes on in the copied database');
polls_to($node, 'copy', computing(), 'and in the copy');

# another tablespace
my $tablespace = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$tablespace'");
succeeds('postgres', 'ALTER DATABASE copy SET TABLESPACE elsewhere');
polls_to($node, 'copy', computing(), 'EROS goes on in the moved database');
succeeds('postgres', 'DROP DATABASE copy');

# a command that fails, and one that is not allowed
my $session = open_session($node, 'uno');
my ($status, $stdout, $stderr) = $node->psql('postgres', 'DROP DATABASE uno');
like($stderr, qr/is being accessed by other users/, 'a database in use is not dropped');
polls_to($node, 'uno', computing(), 'EROS goes on after a DROP DATABASE that failed');
close_session($session);

my $scheduler = value($node, 'uno', 'SELECT scheduler_pid FROM eros.status');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN CREATEDB');
for my $case ([ 'postgres', 'DROP DATABASE uno' ], [ 'postgres', 'ALTER DATABASE uno RENAME TO one' ],
	[ 'postgres', 'CREATE DATABASE copy TEMPLATE uno' ],
	[ 'postgres', 'ALTER DATABASE uno SET TABLESPACE elsewhere' ], [ 'uno', 'DROP EXTENSION eros' ])
{
	my ($db, $sql) = @$case;

	($status, $stdout, $stderr) = $node->psql($db, "SET ROLE nobody; $sql");
	like($stderr, qr/must be owner|permission denied/, "not allowed: $sql");
	is(value($node, 'uno', 'SELECT scheduler_pid FROM eros.status'), $scheduler, 'and it does not disturb EROS');
}
polls_to($node, 'uno', computing(), 'the work goes on after commands that were not allowed');

# a template; the launcher looks when another database gets the extension
$node->safe_psql('postgres', 'ALTER DATABASE uno IS_TEMPLATE true; CREATE DATABASE two');
create_eros($node, 'two');
comes_to_be_left('uno', 'when it is a template');
succeeds('postgres', 'CREATE DATABASE copy TEMPLATE uno');
$node->safe_psql('postgres', 'ALTER DATABASE uno IS_TEMPLATE false');
$node->safe_psql('uno', 'SELECT eros_touch(2)');
polls_to($node, 'uno', computing(), 'EROS goes on when it is none any more');
polls_to($node, 'two', running(), 'and has gone on in the other database');
$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $_") for 'copy', 'two';

# the end of the extension
succeeds('uno', 'DROP EXTENSION eros CASCADE');
comes_to_be_left('uno', 'after DROP EXTENSION');
is(value($node, 'uno', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'eros'}), 0, 'the schema is gone');
$node->safe_psql('uno', 'DROP FUNCTION sleeps');
make_busy('uno');
$node->safe_psql('uno', 'BEGIN; DROP EXTENSION eros; ROLLBACK');
polls_to($node, 'uno', computing(), 'EROS goes on after a DROP EXTENSION that was rolled back');
$node->safe_psql('uno', 'BEGIN; SAVEPOINT a; DROP EXTENSION eros; ROLLBACK TO a; COMMIT');
polls_to($node, 'uno', computing(), 'also after one in a subtransaction');
$node->safe_psql('uno', 'BEGIN; DROP EXTENSION eros; CREATE EXTENSION eros; COMMIT');
polls_to($node, 'uno', running(), 'EROS runs after DROP and CREATE EXTENSION in one transaction');
is(value($node, 'uno', 'SELECT count(*) FROM eros.handler'), 0, 'and knows nothing of before');
is(value($node, 'uno', 'SELECT active_users + idle_users FROM eros.status'), 0, 'nor anybody');

# an extension that comes not to be
$node->safe_psql('postgres', 'CREATE DATABASE two');
$node->safe_psql('two', 'BEGIN; CREATE EXTENSION eros; ROLLBACK');
comes_to_be_left('two', 'after a CREATE EXTENSION that was rolled back');
$node->safe_psql('two', 'BEGIN; CREATE EXTENSION eros; SELECT eros_touch(1); ROLLBACK');
comes_to_be_left('two', 'also when it was used');
make_busy('two');
$node->safe_psql('two', 'DROP EXTENSION eros');
comes_to_be_left('two', 'after DROP EXTENSION');

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
