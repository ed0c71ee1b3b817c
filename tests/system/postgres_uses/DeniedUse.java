// The PostgreSQL JDBC driver is denied something, and its connection goes on.
//
//     java -cp /usr/share/java/postgresql.jar DeniedUse.java URL USER

import java.sql.*;
import org.postgresql.util.PSQLException;

public class DeniedUse {
    static final String COUNT = "SELECT count(*) FROM orders";
    static final String[] DENIED = {
        "DROP TABLE orders", "SELECT card FROM customers", "DELETE FROM refunds",
        "UPDATE customers SET name = 'x' WHERE id = 1", "SELECT 1; DROP TABLE orders; SELECT 2",
        "SET SESSION AUTHORIZATION postgres",
    };

    interface Use { Object run() throws SQLException; }

    static void attempt(Use use) {
        try {
            System.out.println("OK " + use.run());
        } catch (SQLException error) {
            var told = ((PSQLException) (error instanceof BatchUpdateException ? error.getNextException() == null
                ? error.getCause() : error.getNextException() : error)).getServerErrorMessage();
            System.out.println("NO " + error.getSQLState() + " " + told.getMessage().startsWith("loopwarden: ")
                + " " + (told.getDetail() != null && told.getHint() != null));
        }
    }

    static Object count(Connection c) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet found = s.executeQuery(COUNT)) {
            found.next();
            return found.getInt(1);
        }
    }

    public static void main(String[] args) throws Exception {
        try (Connection c = DriverManager.getConnection(args[0], args[1], "")) {
            for (String text : DENIED) {
                attempt(() -> { try (Statement s = c.createStatement()) { return s.execute(text); } });
                attempt(() -> count(c));
                for (int i = 0; i < 7; i++) {  // from the fifth time on it would be prepared by name
                    attempt(() -> { try (PreparedStatement s = c.prepareStatement(text)) { return s.execute(); } });
                }
                attempt(() -> count(c));
            }
            try (PreparedStatement s = c.prepareStatement("UPDATE customers SET name = ? WHERE id = ?")) {
                for (int i = 1; i < 300; i++) {
                    s.setString(1, "x");
                    s.setInt(2, i);
                    s.addBatch();
                }
                attempt(() -> s.executeBatch());
            }
            attempt(() -> count(c));
            c.setAutoCommit(false);
            attempt(() -> count(c));
            Savepoint point = c.setSavepoint();
            attempt(() -> { try (Statement s = c.createStatement()) { return s.execute(DENIED[0]); } });
            c.rollback(point);
            attempt(() -> count(c));
            c.commit();
        }
    }
}
