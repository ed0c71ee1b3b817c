// The PostgreSQL JDBC driver in the ways that programs use it. Prints what it sees.
//
//     java -cp /usr/share/java/postgresql.jar JdbcUse.java URL USER [PASSWORD]

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.util.Arrays;
import java.util.Properties;
import org.postgresql.PGConnection;

public class JdbcUse {
    static String url;
    static Properties words = new Properties();

    interface Use { void run(Connection c) throws Exception; }

    public static void main(String[] args) throws Exception {
        url = args[0];
        words.setProperty("user", args[1]);
        if (args.length > 2) words.setProperty("password", args[2]);
        use("prepared", JdbcUse::prepared);
        use("batch", JdbcUse::batch);
        use("cursors", JdbcUse::cursors);
        use("keys", JdbcUse::keys);
        use("metadata", JdbcUse::metadata);
        use("transactions", JdbcUse::transactions);
        use("copy", JdbcUse::copy);
        use("types", JdbcUse::types);
        use("notify", JdbcUse::notifications);
        use("cancel", JdbcUse::cancel);
        for (String mode : new String[] {"simple", "extendedForPrepared", "extendedCacheEverything"}) {
            words.setProperty("preferQueryMode", mode);
            use("mode " + mode, JdbcUse::prepared);
        }
        words.remove("preferQueryMode");
        words.setProperty("reWriteBatchedInserts", "true");
        words.setProperty("binaryTransfer", "false");
        use("rewritten", JdbcUse::batch);
    }

    static void use(String name, Use use) throws Exception {
        System.out.println("--- " + name);
        try (Connection c = DriverManager.getConnection(url, words)) {
            use.run(c);
        }
    }

    static void say(Object... values) { System.out.println(Arrays.toString(values)); }

    static void rows(ResultSet found) throws SQLException {
        ResultSetMetaData meta = found.getMetaData();
        while (found.next()) {
            StringBuilder line = new StringBuilder();
            for (int i = 1; i <= meta.getColumnCount(); i++)
                line.append(meta.getColumnLabel(i)).append('=').append(found.getString(i)).append(' ');
            System.out.println(line);
        }
        found.close();
    }

    static void failing(SQLException error) {
        say(error.getSQLState(), error.getMessage(),
            error.getNextException() == null ? "" : error.getNextException().getMessage());
    }

    static void prepared(Connection c) throws Exception {
        try (PreparedStatement s = c.prepareStatement("SELECT ?::int + 1, ?::text, ?::timestamptz")) {
            for (int i = 0; i < 12; i++) {  // from the fifth time on: named, then binary
                s.setInt(1, i);
                s.setString(2, "ü" + i);
                s.setTimestamp(3, new Timestamp(1_700_000_000_000L + i * 1000L));
                rows(s.executeQuery());
            }
        }
        try (PreparedStatement s = c.prepareStatement("SELECT 1 / ?")) {
            for (int i = -3; i < 4; i++) {
                s.setInt(1, i);
                try { rows(s.executeQuery()); } catch (SQLException error) { failing(error); }
            }
            say(s.getParameterMetaData().getParameterTypeName(1), s.getMetaData().getColumnCount());
        }
        try (Statement s = c.createStatement()) {
            boolean more = s.execute("SELECT 1 AS a; CREATE TEMP TABLE t (a int); INSERT INTO t VALUES (1), (2); SELECT * FROM t");
            while (more || s.getUpdateCount() != -1) {
                if (more) rows(s.getResultSet()); else say("count", s.getUpdateCount());
                more = s.getMoreResults();
            }
        }
    }

    static void batch(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("CREATE TEMP TABLE b (id int PRIMARY KEY, name text)");
        }
        try (PreparedStatement s = c.prepareStatement("INSERT INTO b VALUES (?, ?)")) {
            for (int i = 0; i < 2000; i++) {
                s.setInt(1, i);
                s.setString(2, "name " + i);
                s.addBatch();
            }
            say(s.executeBatch().length);
            for (int id : new int[] {5000, 5001, 7, 5002}) {
                s.setInt(1, id);
                s.setString(2, "x");
                s.addBatch();
            }
            try { s.executeBatch(); } catch (BatchUpdateException error) {
                say(error.getSQLState(), error.getUpdateCounts().length);
            }
        }
        try (Statement s = c.createStatement()) {
            s.addBatch("UPDATE b SET name = 'y' WHERE id < 10");
            s.addBatch("DELETE FROM b WHERE id > 1990");
            say(Arrays.toString(s.executeBatch()));
            rows(s.executeQuery("SELECT count(*), min(name) FROM b"));
        }
    }

    static void cursors(Connection c) throws Exception {
        c.setAutoCommit(false);
        try (Statement s = c.createStatement()) {
            s.setFetchSize(50);
            ResultSet found = s.executeQuery("SELECT id, state FROM orders ORDER BY id");
            long sum = 0;
            for (int i = 0; found.next(); i++) sum += found.getInt(1) + (i % 50 == 0 ? found.getString(2).length() : 0);
            say(sum);
        }
        try (PreparedStatement a = c.prepareStatement("SELECT n FROM generate_series(1, ?) n");
             PreparedStatement b = c.prepareStatement("SELECT n * 2 FROM generate_series(1, ?) n")) {
            a.setInt(1, 500); a.setFetchSize(7);
            b.setInt(1, 500); b.setFetchSize(11);
            ResultSet one = a.executeQuery(), two = b.executeQuery();  // two portals at once
            long sum = 0;
            while (one.next() && two.next()) sum += one.getInt(1) * 3L + two.getInt(1);
            say(sum);
        }
        try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
            ResultSet found = s.executeQuery("SELECT id, reason FROM refunds ORDER BY id LIMIT 5");
            found.absolute(3);
            found.updateString("reason", "changed");
            found.updateRow();
            found.beforeFirst();
            rows(found);
        }
        try (Statement s = c.createStatement()) {
            s.setMaxRows(3);
            rows(s.executeQuery("SELECT id FROM orders ORDER BY id DESC"));
        }
        c.rollback();
    }

    static void keys(Connection c) throws Exception {
        String sql = "INSERT INTO refunds (order_id, amount, reason) VALUES (?, ?, ?)";
        try (PreparedStatement s = c.prepareStatement(sql, Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 3; i++) {
                s.setInt(1, 3);
                s.setBigDecimal(2, new BigDecimal("1.50"));
                s.setNull(3, Types.VARCHAR);
                say(s.executeUpdate());
                rows(s.getGeneratedKeys());
                s.addBatch();
            }
            s.executeBatch();
            rows(s.getGeneratedKeys());
        }
        try (PreparedStatement s = c.prepareStatement(sql, new String[] {"id", "amount"})) {
            s.setInt(1, 3);
            s.setBigDecimal(2, BigDecimal.TEN);
            s.setString(3, "why");
            s.executeUpdate();
            rows(s.getGeneratedKeys());
        }
    }

    static void metadata(Connection c) throws Exception {
        DatabaseMetaData m = c.getMetaData();
        say(m.getDatabaseProductVersion(), m.getDriverVersion(), m.getMaxColumnNameLength(), m.getUserName());
        rows(m.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"}));
        rows(m.getColumns(null, "public", "%", "%"));
        rows(m.getPrimaryKeys(null, "public", "orders"));
        rows(m.getImportedKeys(null, "public", "orders"));
        rows(m.getExportedKeys(null, "public", "orders"));
        rows(m.getIndexInfo(null, "public", "orders", false, true));
        rows(m.getProcedures(null, "public", "%"));
        rows(m.getFunctions(null, "public", "%"));
        rows(m.getFunctionColumns(null, "public", "%", "%"));
        rows(m.getSchemas());
        rows(m.getTableTypes());
        rows(m.getTablePrivileges(null, "public", "orders"));
        rows(m.getBestRowIdentifier(null, "public", "orders", DatabaseMetaData.bestRowSession, false));
        ResultSet types = m.getTypeInfo();
        int count = 0;
        while (types.next()) count++;
        say(count > 50, m.getNumericFunctions(), m.getSQLKeywords().length());
    }

    static void transactions(Connection c) throws Exception {
        c.setAutoCommit(false);
        c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        try (Statement s = c.createStatement()) {
            s.execute("UPDATE orders SET state = 'open' WHERE id = 1");
            Savepoint point = c.setSavepoint("here");
            try { s.execute("SELECT 1/0"); } catch (SQLException error) { failing(error); }
            try { s.execute("SELECT 1"); } catch (SQLException error) { failing(error); }
            c.rollback(point);
            rows(s.executeQuery("SELECT state FROM orders WHERE id = 1"));
            c.rollback();
            c.setReadOnly(true);
            try { s.execute("DELETE FROM refunds WHERE id = 1"); } catch (SQLException error) { failing(error); }
            c.rollback();
            c.setReadOnly(false);
        }
        c.setAutoCommit(true);
        c.setSchema("pg_catalog");
        say(c.getSchema(), c.getCatalog(), c.isValid(5), c.getTransactionIsolation());
        c.setNetworkTimeout(Runnable::run, 5000);
    }

    static void copy(Connection c) throws Exception {
        var api = c.unwrap(PGConnection.class).getCopyAPI();
        try (Statement s = c.createStatement()) {
            s.execute("CREATE TEMP TABLE k (a int, b text)");
        }
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < 20000; i++) lines.append(i).append("\tline ").append(i).append('\n');
        say(api.copyIn("COPY k FROM STDIN", new StringReader(lines.toString())));
        StringWriter out = new StringWriter();
        say(api.copyOut("COPY (SELECT * FROM k ORDER BY a) TO STDOUT", out), out.toString().hashCode());
        try { api.copyIn("COPY k FROM STDIN", new StringReader("bad\tdata\n")); }
        catch (SQLException error) { failing(error); }
        var given = api.copyIn("COPY k FROM STDIN");
        given.cancelCopy();
        try (Statement s = c.createStatement()) {
            rows(s.executeQuery("SELECT count(*), sum(a) FROM k"));
        }
    }

    static void types(Connection c) throws Exception {
        try (PreparedStatement s = c.prepareStatement(
                "SELECT ?::bytea, ?::uuid, ?::jsonb, ?::int[], ?::date, ?::numeric, ?::bool, ?::float8")) {
            for (int i = 0; i < 7; i++) {
                s.setBytes(1, new byte[1 << 20]);
                s.setObject(2, new java.util.UUID(1, i));
                s.setString(3, "{\"a\": [1, null]}");
                s.setArray(4, c.createArrayOf("int4", new Object[] {1, null, i}));
                s.setDate(5, Date.valueOf("2024-02-29"));
                s.setBigDecimal(6, new BigDecimal("12345678901234567890.123456789"));
                s.setBoolean(7, true);
                s.setDouble(8, 1.5);
                ResultSet found = s.executeQuery();
                found.next();
                say(found.getBytes(1).length, found.getObject(2), found.getString(3),
                    Arrays.toString((Object[]) found.getArray(4).getArray()), found.getDate(5),
                    found.getBigDecimal(6), found.getBoolean(7), found.getDouble(8));
            }
        }
        c.setAutoCommit(false);
        try (CallableStatement s = c.prepareCall("{ ? = call order_total(?) }")) {
            s.registerOutParameter(1, Types.NUMERIC);
            s.setInt(2, 5);
            s.execute();
            say(s.getBigDecimal(1));
        }
        var large = c.unwrap(PGConnection.class).getLargeObjectAPI();  // the fast path: FunctionCall
        long oid = large.createLO();
        var object = large.open(oid);
        object.write(new byte[100_000]);
        object.seek(50_000);
        say(object.read(60_000).length, object.size());
        object.close();
        large.delete(oid);
        c.commit();
    }

    static void notifications(Connection c) throws Exception {
        try (Statement s = c.createStatement(); Connection d = DriverManager.getConnection(url, words)) {
            s.execute("LISTEN news");
            try (Statement other = d.createStatement()) { other.execute("NOTIFY news, 'told'"); }
            var told = c.unwrap(PGConnection.class).getNotifications(60_000);
            say(told.length, told[0].getName(), told[0].getParameter());
            s.execute("DO $$ BEGIN RAISE WARNING 'beware'; END $$");
            say(s.getWarnings().getMessage());
        }
    }

    /** Cancel when the server has begun to sleep: before, it would mean nothing. */
    static void whenAsleep(Statement sleeping) throws Exception {
        String asleep = "SELECT 1 FROM pg_stat_activity"
            + " WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
        try (Connection d = DriverManager.getConnection(url, words); Statement s = d.createStatement()) {
            while (!s.executeQuery(asleep).next()) { }
        }
        sleeping.cancel();
    }

    static void cancel(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            Thread other = new Thread(() -> {
                try { whenAsleep(s); } catch (Exception error) { say(error); }
            });
            other.start();
            try { s.execute("SELECT pg_sleep(60)"); } catch (SQLException error) { failing(error); }
            other.join();
            s.setQueryTimeout(1);
            try { s.execute("SELECT pg_sleep(20)"); } catch (SQLException error) { failing(error); }
            s.setQueryTimeout(0);
            rows(s.executeQuery("SELECT 'goes on'"));
        }
    }
}
