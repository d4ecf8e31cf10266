# Nothing waits for EROS: whatever needs a database, the extension, a table of EROS's or a table that a
# handler uses, while workers are in a long call, in a lock wait, in a pause.  EROS goes on afterwards.
# (004 has what DDL on databases and the extension leaves behind.)

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = eros_node('main', "max_prepared_transactions = 5\n");
my $tablespace = PostgreSQL::Test::Utils::tempdir;
my @slow;

$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$tablespace'; CREATE ROLE boss SUPERUSER; CREATE ROLE app");

# How a worker can be busy, how it is made so, and how one sees that it is.
my %busy = (
	'in a long call' => [
		q{SELECT eros.enable_handler('sleeps')},
		q{SELECT count(*) > 0 FROM eros.status_worker WHERE activity = 'computing' AND handler = 'sleeps'} ],
	'in a lock wait' => [
		q{SELECT eros.enable_handler('waits')},
		q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'eros worker' AND wait_event_type = 'Lock'
			AND datname = current_database()} ],
	'in a pause inside of a call' => [
		q{UPDATE eros.phase SET cpu_percent = 5; SELECT eros.enable_handler('burns')},
		q{SELECT count(*) > 0 FROM eros.status_worker WHERE activity = 'pausing in call'} ]);

# Makes a database in which a worker is busy in one of these ways.
sub busy_database
{
	my ($db, $how) = @_;
	my ($prepare, $is_so) = @{ $busy{$how} };

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	create_eros($node, $db);
	soon_idle($node, $db);
	$node->safe_psql(
		$db, q{
		CREATE TABLE used (id integer PRIMARY KEY);
		CREATE TABLE kept (id integer PRIMARY KEY);
		INSERT INTO used VALUES (1);
		INSERT INTO kept VALUES (1);
		CREATE FUNCTION sleeps(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM 1 FROM public.used;
			PERFORM pg_sleep(3600);
		END $$;
		CREATE FUNCTION waits(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM 1 FROM public.used;
			PERFORM 1 FROM public.kept FOR UPDATE;
		END $$;
		CREATE FUNCTION burns(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM 1 FROM public.used;
			LOOP END LOOP;
		END $$;
		SELECT eros.add_handler(h, h, phase => 1, timeout => '2 hours', enabled => false)
			FROM unnest('{sleeps,waits,burns}'::text[]) h});
	$node->safe_psql($db, q{BEGIN; SELECT 1 FROM kept FOR UPDATE; PREPARE TRANSACTION 'keeps'}) if $how eq 'in a lock wait';
	$node->safe_psql($db, $prepare);
	$node->safe_psql($db, 'SELECT eros_touch(1)');
	$node->poll_query_until($db, $is_so) or die "no worker $how";
	return;
}

# Tests that a command does not wait for a busy worker.
sub succeeds
{
	my ($db, $sql, $how) = @_;
	my $start = time;

	my ($status, $stdout, $stderr) = $node->psql($db, $sql);
	my $took = time - $start;
	is($status, 0, "$how: $sql") or diag($stderr);
	note(sprintf('%.2f s', $took));
	push @slow, sprintf('%.2f s: %s: %s', $took, $how, $sql) if $took > 1;
	return;
}

# a command that hangs fails
$node->safe_psql('postgres', q{ALTER SYSTEM SET statement_timeout = '180s'});
$node->reload;

for my $how (sort keys %busy)
{
	my $is_so = $busy{$how}[1];
	my $lock_kept = $how eq 'in a lock wait';

	# tables that handlers use, and EROS's own: what runs is rolled back, and begins again
	my ($commands, $went_on) = (0, 0);
	busy_database('one', $how);
	for my $sql (
		'ALTER TABLE used ADD COLUMN more integer', 'ALTER TABLE used DROP COLUMN more', 'CREATE INDEX used_more ON used (id)',
		'VACUUM FULL used', 'TRUNCATE used',
		'VACUUM FULL eros.job', 'VACUUM FULL eros.activity', 'VACUUM FULL eros.spilled_touch', 'VACUUM FULL eros.cache',
		'REINDEX TABLE eros.job', 'REINDEX TABLE eros.activity', 'REINDEX TABLE eros.cache', 'REINDEX TABLE eros.handler',
		'REINDEX TABLE CONCURRENTLY eros.job', 'CLUSTER eros.activity USING activity_pkey',
		'TRUNCATE eros.cache', 'TRUNCATE eros.spilled_touch', 'ANALYZE eros.job')
	{
		succeeds('one', $sql, $how);
		$went_on++ if $node->poll_query_until('one', $is_so);
		$commands++;
	}
	is($went_on, $commands, "$how: EROS goes on after each");
	for my $sql ('TRUNCATE eros.job', 'TRUNCATE eros.activity')
	{
		succeeds('one', $sql, $how);
		$node->safe_psql('one', 'SELECT eros_touch(1)');
		polls_to($node, 'one', $is_so, "$how: EROS goes on after: $sql");
	}
	$node->safe_psql('one', q{ROLLBACK PREPARED 'keeps'}) if $lock_kept;
	succeeds('one', 'DROP TABLE used', $how);
	polls_to($node, 'one', running(), "$how: EROS runs");
	$node->safe_psql('postgres', 'DROP DATABASE one WITH (FORCE)');

	# the database and the extension; a prepared transaction in it would keep the database from being dropped
	next if $lock_kept;
	for my $sql (
		[ 'postgres', 'ALTER DATABASE one RENAME TO uno', 'uno' ], [ 'postgres', 'ALTER DATABASE one SET TABLESPACE elsewhere', 'one' ],
		[ 'postgres', 'CREATE DATABASE copy TEMPLATE one', 'one' ], [ 'postgres', 'DROP DATABASE one', undef ],
		[ 'one', 'DROP EXTENSION eros CASCADE', 'one' ], [ 'one', 'DROP SCHEMA public CASCADE', 'one' ],
		[ 'one', 'REASSIGN OWNED BY boss TO postgres; DROP OWNED BY boss CASCADE', 'one' ])
	{
		my ($in, $statement, $after) = @$sql;

		busy_database('one', $how);
		succeeds($in, $statement, $how);
		polls_to($node, $after, $is_so, "$how: EROS goes on after: $statement")
		  if $in eq 'postgres' && $after;
		$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $_ WITH (FORCE)") for 'one', 'uno', 'copy';
	}
}

# DROP OWNED of the extension's owner drops it
busy_database('one', 'in a long call');
$node->safe_psql('one', 'DROP EXTENSION eros CASCADE; GRANT ALL ON DATABASE one TO boss; DROP FUNCTION sleeps, waits, burns; DROP TABLE used, kept');
$node->safe_psql('one', 'SET SESSION AUTHORIZATION boss; CREATE EXTENSION eros');
soon_idle($node, 'one');
sleeping_handler($node, 'one');
$node->safe_psql('one', 'SELECT eros_touch(1)');
polls_to($node, 'one', computing(), 'a worker is busy with an extension that another role owns');
succeeds('one', 'DROP OWNED BY boss CASCADE', 'in a long call');
is(value($node, 'one', q{SELECT count(*) FROM pg_extension WHERE extname = 'eros'}), 0, 'the extension is gone');

note("longer than a second: $_") for @slow;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
