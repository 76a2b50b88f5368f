"""Files into trees and out of them."""
