# What the tests of whole servers share: nodes with EROS, users who become idle, polling.
package ErosTest;

use strict;
use warnings;

# a server may take as long to start as anything else
BEGIN { $ENV{PGCTLTIMEOUT} //= 180 }

use Exporter 'import';
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  eros_node eros_settings reload_with
  create_eros soon_idle gated_handler open_gate sleeping_handler
  value polls_to started running computing on_disk
  open_session in_session close_session
  test_module
);

# The settings of every test server.
sub eros_settings
{
	return slurp_file("$FindBin::RealBin/../eros.conf") . "log_statement = none\n";
}

# Names the library of functions that behave badly.
sub test_module
{
	return "$FindBin::RealBin/../module/eros_test";
}

# Starts a server with EROS; more settings come after those of eros.conf.
sub eros_node
{
	my ($name, $settings, %init) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%init);
	$node->append_conf('postgresql.conf', eros_settings() . ($settings // ''));
	$node->start;
	return $node;
}

# Changes settings of a running server.
sub reload_with
{
	my ($node, %settings) = @_;

	while (my ($name, $setting) = each %settings)
	{
		$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$setting'");
	}
	$node->reload;
	return;
}

# Creates the extension and waits for the database's scheduler.
sub create_eros
{
	my ($node, $db) = @_;

	$node->safe_psql($db, 'CREATE EXTENSION eros');
	return polls_to($node, $db, running(), "EROS starts in database $db");
}

# Has users of a database become idle within a fraction of a second, and work done at once.
sub soon_idle
{
	my ($node, $db, $batch_size) = @_;

	$batch_size //= 15;
	$node->safe_psql(
		$db, qq{
		UPDATE eros.phase SET
			idle_after = CASE phase WHEN 1 THEN interval '100 ms' ELSE phase * interval '1 day' END,
			cpu_percent = 95, batch_size = $batch_size});
	return;
}

# Registers a handler of phase 1 that notes each user for whom it was called to the end.  While its
# gate is closed, a call does not end.
sub gated_handler
{
	my ($node, $db, $seconds_a_batch) = @_;

	$seconds_a_batch //= 0;
	$node->safe_psql(
		$db, qq{
		CREATE SCHEMA app;
		CREATE TABLE app.gate AS SELECT true AS open;
		CREATE TABLE app.call (user_id bigint, at timestamptz DEFAULT clock_timestamp());
		CREATE FUNCTION app.gated(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
		LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM pg_sleep($seconds_a_batch);
			WHILE NOT (SELECT g.open FROM app.gate g) LOOP
				PERFORM pg_sleep(0.05);
			END LOOP;
			INSERT INTO app.call SELECT unnest(user_ids);
			RETURN QUERY SELECT u, to_jsonb(u) FROM unnest(user_ids) u;
		END \$\$;
		SELECT eros.add_handler('gated', 'app.gated', phase => 1, timeout => '1 hour');});
	return;
}

# Opens or closes the gate.
sub open_gate
{
	my ($node, $db, $open) = @_;

	$node->safe_psql($db, 'UPDATE app.gate SET open = ' . ($open ? 'true' : 'false'));
	return;
}

# Registers a handler of phase 1 whose call takes an hour.
sub sleeping_handler
{
	my ($node, $db) = @_;

	$node->safe_psql(
		$db, q{
		CREATE FUNCTION sleeps(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
		LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM pg_sleep(3600);
		END $$;
		SELECT eros.add_handler('sleeps', 'sleeps', phase => 1, timeout => '2 hours')});
	return;
}

# The one value of a query.
sub value
{
	my ($node, $db, $sql) = @_;

	return $node->safe_psql($db, $sql);
}

# A test: the query comes to give this value (true, when none is given).
sub polls_to
{
	my ($node, $db, $sql, $name, $expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until($db, $sql, $expected // 't'), $name);
}

# True when the processes that serve the database that is asked are there.
sub started
{
	return 'SELECT launcher_pid IS NOT NULL AND scheduler_pid IS NOT NULL FROM eros.status';
}

# True when they are, and have looked at it since the server was started.
sub running
{
	return 'SELECT launcher_pid IS NOT NULL AND scheduler_pid IS NOT NULL AND last_sweep IS NOT NULL FROM eros.status';
}

# True when a worker of the database that is asked calls its handler.
sub computing
{
	return q{SELECT count(*) > 0 FROM eros.status_worker WHERE activity = 'computing'};
}

# Has all that was committed survive a crash: EROS commits asynchronously, and a commit that does not
# takes what came before it along.
sub on_disk
{
	my ($node, $db) = @_;

	$node->safe_psql($db, 'CREATE TABLE flush (); DROP TABLE flush');
	return;
}

# Opens a session that stays connected.  (PostgreSQL::Test's own differs from version to version.)
sub open_session
{
	my ($node, $db) = @_;
	my $session = { in => '', out => '', marks => 0 };

	$session->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$session->{psql} = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr($db) ],
		'<', \$session->{in}, '>', \$session->{out}, '2>&1', $session->{timer});
	in_session($session, 'SELECT 1');
	return $session;
}

# Runs a statement in a session; returns what it printed.
sub in_session
{
	my ($session, $sql) = @_;
	my $mark = 'done ' . ++$session->{marks};

	$session->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	$session->{out} = '';
	$session->{in} .= "$sql;\n\\echo '$mark'\n";
	$session->{psql}->pump until $session->{out} =~ /^\Q$mark\E$/m;
	return $session->{out} =~ s/^\Q$mark\E\n//mr;
}

# Ends a session.
sub close_session
{
	my ($session) = @_;

	$session->{in} .= "\\q\n";
	$session->{psql}->finish;
	return;
}

1;
